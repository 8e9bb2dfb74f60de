"""What a layer of the Flax twin keeps for its backward pass, as XLA plans it, in values a token.

Read off XLA's plans, component by component (jax 0.10; `slm_flax.memory`), for a CPU and for a GPU of compute
capability 7.5. For a GPU an array is kept once, where a product reads or makes it; for a CPU also where it would have
to be computed again from a division or an exponential, and twice where two loops read it. What only moves or multiplies
numbers is fused into its readers and costs nothing: RoPE, dropout's masks, residual additions' gradients.
"""

from typing import NamedTuple

from slm_core.config import Attention, Mlp, Model, Norm
from slm_core.config.widths import query_width, value_shape
from slm_core.planner.parameters import GATED, NORMS


class Compiler(NamedTuple):
    """What one of XLA's compilers keeps.

    Args:
      norm: vectors by norm.kind: as the next product reads it, and what that was made of.
      mlp: vectors of the hidden width by mlp.kind: results of products, and what each step of the activation made.
      scores: arrays of all scores that the plain kernel keeps: the softmax, that without what is masked, exponentials.
      loop: arrays of queries and keys that flash keeps: as they are, and as its second loop reads them.
      softcap: scores before they are capped.
      qk_norm: of queries and keys: as they come, normalised, scaled, turned.
      latent: of MLA's latents: as they come, and normalised.
      joined: of MLA's keys: before their rotary part comes to them.
      difference: of differential attention's result: of both maps, their difference, its norm.
      gate: of attention's result: the gate, before and after its sigmoid, and what it is multiplied with.
      mixed: of values: a layer's own and the first layer's, where they are mixed.
      routed: of a mixture's rows beside `mlp`: of the hidden width, and of the stream's, sorted and weighted.
    """

    norm: dict[str, float]
    mlp: dict[str, float]
    scores: int
    loop: int
    softcap: int
    qk_norm: float
    latent: int
    joined: int
    difference: int
    gate: float
    mixed: int
    routed: tuple[int, int]


CPU = Compiler(
    norm={"rmsnorm": 2, "layernorm": 3, "dyt": 2},
    mlp={"swiglu": 5, "geglu": 6, "clipped_swiglu": 6, "gelu": 4, "relu2": 2},
    scores=3, loop=2, softcap=1, qk_norm=4, latent=3, joined=0, difference=5, gate=1, mixed=1, routed=(1, 3),
)  # fmt: skip
GPU = Compiler(
    norm={"rmsnorm": 1, "layernorm": 1, "dyt": 2},
    mlp={"swiglu": 3, "geglu": 4, "clipped_swiglu": 3.5, "gelu": 3, "relu2": 2},
    scores=2, loop=1, softcap=0, qk_norm=1.25, latent=2, joined=1, difference=1, gate=2.5, mixed=4, routed=(0, 2),
)  # fmt: skip

NORM, MLP = CPU.norm, CPU.mlp
"""The kinds that are known, of either compiler."""

BLOCKS, GPU_TILE = 4, 256
"""Of `slm_flax.layers.fused` on a CPU, and of `slm_flax.layers.flash` on a GPU."""


PADDED = 1.25
"""Rows of a mixture for a choice of an expert, with those that fill up blocks: a quarter at most."""


class Kept(NamedTuple):
    """Values a token.

    Args:
      attention, mlp: of the two halves of a block, each with its norms and the stream after it.
      whole: of `attention` one array of all scores at once, where there is one.
      products: those of both that are results of products with weights.
    """

    attention: float
    mlp: float
    whole: float
    products: float

    @property
    def all(self) -> float:
        return self.attention + self.mlp


def kept(model: Model, length: int, cpu: bool, apart: bool) -> Kept:
    """Returns what a block keeps.

    Args:
      model: its layer's.
      length: the context.
      cpu: whether a CPU computes.
      apart: whether sums are computed apart from what they sum, which then is kept as well.
    """
    compiler, width, norms = CPU if cpu else GPU, model.d_model, NORMS[model.norm.placement]
    for_mlp = sum("mlp" in name for name in norms)
    kernel = _kernel(model.attention, cpu)
    scores = _scores(compiler, model.attention, kernel, length, apart)
    norm = _norm(compiler, model.norm) * width + apart * width
    attention = width + (len(norms) - for_mlp) * norm + _attention(compiler, model, kernel) + scores
    mlp = width + for_mlp * norm + _mlp(compiler, width, model.mlp)
    whole = scores / compiler.scores if kernel == "dot_product" else 0
    return Kept(attention, mlp, whole, _products(model))


def _kernel(attention: Attention, cpu: bool) -> str:
    """Returns what computes attention: flash where the fused kernel cannot, and on every GPU."""
    lacking = attention.softcap or attention.sinks or value_shape(attention)[1] != query_width(attention)
    return "flash" if attention.kernel == "fused" and (lacking or not cpu) else attention.kernel


def _norm(compiler: Compiler, norm: Norm) -> float:
    return max(1, compiler.norm[norm.kind] - (norm.weight == "none"))


def _attention(compiler: Compiler, model: Model, kernel: str) -> float:
    """Returns what attention keeps but for scores: what the kernel reads, and what it returns."""
    attention, heads = model.attention, model.attention.n_heads
    maps = 2 if attention.kind == "differential" else 1
    key_heads = heads if attention.kind == "mla" else attention.n_kv_heads
    q, k = maps * heads * query_width(attention), maps * key_heads * query_width(attention)
    value_heads, value_width = value_shape(attention)
    v, y = value_heads * value_width, heads * value_width
    if kernel == "dot_product":
        found = q + k + maps * v + y
    elif kernel == "fused":
        found = q + 2.5 * (k + maps * v) + y  # each block of queries has its own slice of keys and values
    else:  # its result with the logarithm of the sums
        found = compiler.loop * (q + k) + (compiler.loop - 1 + maps) * v + maps * (y + heads) + y
    if attention.kind == "mla":
        found += compiler.latent * (attention.kv_rank + (attention.q_rank or 0)) + compiler.joined * k
    if attention.kind == "differential":
        found += compiler.difference * y
    if attention.qk_norm != "none":
        found += compiler.qk_norm * (q + k)
    if attention.gate != "none":
        found += compiler.gate * y
    return found + (compiler.mixed * v if attention.value_residual else 0)


def _scores(compiler: Compiler, attention: Attention, kernel: str, length: int, apart: bool) -> float:
    """Returns the kept scores of a token."""
    maps = 2 if attention.kind == "differential" else 1
    if kernel == "dot_product":
        return maps * (compiler.scores + compiler.softcap * bool(attention.softcap)) * attention.n_heads * length
    if kernel == "fused":  # exponentials and softmax, in blocks of queries with the keys they see
        return maps * (2 + apart) * attention.n_heads * length * (BLOCKS + 1) / (2 * BLOCKS)
    return maps * attention.n_heads * length if compiler is GPU and length <= GPU_TILE else 0  # a loop of one is none


def _mlp(compiler: Compiler, width: int, mlp: Mlp) -> float:
    if mlp.kind != "moe":
        return compiler.mlp[mlp.kind] * mlp.hidden
    rows, inner = mlp.top_k * PADDED, compiler.mlp[mlp.expert]
    hidden, stream = compiler.routed
    routed = rows * ((inner + hidden) * mlp.hidden + stream * width) + mlp.top_k * width
    return routed + mlp.shared_experts * inner * mlp.hidden


def _products(model: Model) -> float:
    """Returns the results of products with weights that a backward pass needs: all but the MLP's last."""
    attention, heads = model.attention, model.attention.n_heads
    value_heads, value_width = value_shape(attention)
    maps = 2 if attention.kind == "differential" else 1
    if attention.kind == "mla":
        found = heads * query_width(attention) + (attention.q_rank or 0) + attention.kv_rank + attention.rope_dim
        found += heads * (attention.head_dim + attention.v_dim)
    else:
        found = maps * (heads + attention.n_kv_heads) * attention.head_dim + value_heads * value_width
    if model.mlp.kind != "moe":
        found += (1 + (model.mlp.kind in GATED)) * model.mlp.hidden
    return found + model.d_model
