"""Counts the values per token that a layer of the Flax twin keeps for its backward pass, as XLA plans it.

For a GPU an array is kept once, if a product reads or makes it. For a CPU it is also kept if a division or an
exponential made it, and twice if two loops read it. An operation that only moves or multiplies numbers is fused into
its readers and costs nothing: RoPE, dropout's masks, the gradients of residual additions. The counts themselves are in
`slm_core.planner.xla_constants`.
"""

from typing import NamedTuple

from slm_core.config import Norm
from slm_core.config.layers import AttentionSpec, LayerSpec, MlpSpec
from slm_core.config.widths import query_width, value_shape
from slm_core.planner.mixers import Measured
from slm_core.planner.xla_constants import COMPILERS, Compiler

ATTENTION = ("gqa", "mla", "differential")
"""The kinds of attention that are counted here."""
GATED = ("swiglu", "geglu", "clipped_swiglu")
"""The kinds of MLP, and of expert, with a gate: two matrices read their input."""
NORMS = {
    "pre": (1, 1), "post": (1, 1), "sandwich": (2, 2), "output": (1, 1), "parallel": (1, 1), "parallel_shared": (1, 0),
}  # fmt: skip
"""{norm.placement: (norms around attention, norms around the MLP)}."""
BLOCKS, GPU_TILE = 4, 256
"""Blocks of queries of `slm_flax.layers.fused` on a CPU, and a tile of `slm_flax.layers.flash` on a GPU."""
PADDED = 1.25
"""Rows of a mixture per choice of an expert, with the rows that fill up blocks: at most a quarter more."""


class Kept(NamedTuple):
    """Values per token.

    Args:
      attention, mlp: of the two halves of a block, each with its norms and the stream after it.
      again: what a backward pass needs once more: one array of all scores, or 0 if the kernel makes no such array.
      products: the results of products with weights in both halves.
    """

    attention: float
    mlp: float
    again: float
    products: float

    @property
    def all(self) -> float:
        return self.attention + self.mlp


def kept(layer: LayerSpec, length: int, device: str, apart: bool) -> Kept:
    """Counts what a block keeps.

    Args:
      length: the context.
      device: "cpu" or "gpu".
      apart: whether sums are computed apart from their terms, which are then kept as well.
    """
    compiler, width = COMPILERS[device], layer.d_model
    attention_norms, mlp_norms = NORMS[layer.norm.placement]
    kernel = _kernel(layer.attention, device)
    scores = _scores(compiler, layer.attention, kernel, length, device, apart)
    norm = _norm(compiler, layer.norm) * width + apart * width
    attention = width + attention_norms * norm + _attention(compiler, layer, kernel) + scores
    mlp = 0 if layer.mlp.kind == "none" else width + mlp_norms * norm + _mlp(compiler, width, layer.mlp)
    again = scores / compiler.scores if kernel == "dot_product" else 0
    return Kept(attention, mlp, again, _products(layer))


def measured(layer: LayerSpec, mixer: Measured, device: str, values: int) -> Kept:
    """Counts what a block with a mixer keeps that was measured with its MLP.

    Args:
      device: "cpu" or "gpu".
      values: bytes of one value of every token.
    """
    work = 0 if device == "cpu" else mixer.memory.backward  # a CPU works where the arrays of the MLP were
    return Kept(mixer.memory.kept / values, 0, work / values, mixer.products + _mlp_products(layer))


def _kernel(attention: AttentionSpec, device: str) -> str:
    """Returns the kernel that computes attention: flash in the place of fused on a GPU, or if fused cannot."""
    lacking = attention.softcap or attention.sinks or value_shape(attention)[1] != query_width(attention)
    return "flash" if attention.kernel == "fused" and (lacking or device == "gpu") else attention.kernel


def _norm(compiler: Compiler, norm: Norm) -> float:
    return max(1, compiler.norm[norm.kind] - (norm.weight == "none"))


def _maps(attention: AttentionSpec) -> int:
    return 2 if attention.kind == "differential" else 1


def _attention(compiler: Compiler, layer: LayerSpec, kernel: str) -> float:
    """Counts the values that attention keeps without its scores: the inputs and the outputs of the kernel."""
    attention, heads, maps = layer.attention, layer.attention.n_heads, _maps(layer.attention)
    key_heads = heads if attention.kind == "mla" else attention.n_kv_heads
    q, k = maps * heads * query_width(attention), maps * key_heads * query_width(attention)
    value_heads, value_width = value_shape(attention)
    v, y = value_heads * value_width, heads * value_width
    if kernel == "dot_product":
        total: float = q + k + maps * v + y
    elif kernel == "fused":
        total = q + compiler.block_keys * (k + maps * v) + y
    else:  # flash returns its result and the logarithm of the sums
        total = compiler.loop * (q + k) + (compiler.loop - 1 + maps) * v + maps * (y + heads) + y
    if attention.kind == "mla":
        total += compiler.latent * (attention.kv_rank + (attention.q_rank or 0)) + compiler.joined * k
    if attention.kind == "differential":
        total += compiler.difference * y
    if attention.qk_norm != "none":
        total += compiler.qk_norm * (q + k)
    if attention.gate != "none":
        total += compiler.gate * y
    return total + (compiler.mixed * v if attention.value_residual else 0)


def _scores(compiler: Compiler, attention: AttentionSpec, kernel: str, length: int, device: str, apart: bool) -> float:
    """Returns the kept scores of a token."""
    scores = _maps(attention) * attention.n_heads * length
    if kernel == "dot_product":
        return (compiler.scores + compiler.softcap * bool(attention.softcap)) * scores
    if kernel == "fused":  # exponentials and softmax, of each block of queries with the keys that it sees
        return (2 + apart) * scores * (BLOCKS + 1) / (2 * BLOCKS)
    return scores if device == "gpu" and length <= GPU_TILE else 0  # XLA unrolls a loop over one tile


def _mlp(compiler: Compiler, width: int, mlp: MlpSpec) -> float:
    if mlp.kind != "moe":
        return compiler.mlp[mlp.kind] * mlp.hidden
    rows, inner = mlp.top_k * PADDED, compiler.mlp[mlp.expert]
    routed = rows * ((inner + compiler.routed_hidden) * mlp.hidden + compiler.routed_stream * width)
    return routed + mlp.top_k * width + mlp.shared_experts * inner * mlp.hidden + mlp.shared_gate * width


def _products(layer: LayerSpec) -> float:
    """Returns the results of products with weights that a backward pass needs: all but the MLP's last."""
    attention, heads = layer.attention, layer.attention.n_heads
    value_heads, value_width = value_shape(attention)
    if attention.kind == "mla":
        total = heads * query_width(attention) + (attention.q_rank or 0) + attention.kv_rank + attention.rope_dim
        total += heads * (attention.head_dim + attention.v_dim)
    else:
        total = _maps(attention) * (heads + attention.n_kv_heads) * attention.head_dim + value_heads * value_width
    return total + _mlp_products(layer) + layer.d_model


def _mlp_products(layer: LayerSpec) -> float:
    """Returns the results of an MLP's products with weights that a backward pass needs."""
    return 0 if layer.mlp.kind in ("moe", "none") else (1 + (layer.mlp.kind in GATED)) * layer.mlp.hidden
