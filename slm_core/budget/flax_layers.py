"""What a layer of the Flax twin keeps for its backward pass, as XLA plans it, in values a token.

Read off XLA's plans for a CPU, component by component (jax 0.10; `slm_flax.memory`): an array is kept where a product
reads or makes it, and where it would have to be computed again from a division or an exponential. What only moves or
multiplies numbers is fused into its readers and costs nothing: RoPE, dropout's masks, residual additions' gradients.
"""

from typing import NamedTuple

from slm_core.budget.parameters import GATED, NORMS
from slm_core.config import Attention, Mlp, Model, Norm
from slm_core.heads import query_width, value_shape

NORM = {"rmsnorm": 2, "layernorm": 3, "dyt": 2}
"""Vectors that a norm keeps: normalised, and scaled as the next product reads it; layernorm also the centred one."""

MLP = {"swiglu": 5, "geglu": 6, "clipped_swiglu": 6, "gelu": 4, "relu2": 2}
"""Vectors of the hidden width that an MLP keeps: results of products, and what each step of the activation made."""

BLOCKS = 4
"""Of `slm_flax.layers.fused` on a CPU."""


PADDED = 1.25
"""Rows of a mixture for a choice of an expert, with those that fill up blocks: a quarter at most."""


class Kept(NamedTuple):
    """Values a token.

    Args:
      attention, mlp: of the two halves of a block, each with its norms and the stream after it.
      scores: those of `attention` that are a score by key; `whole`: of all keys at once.
      products: those of both that are results of products with weights.
    """

    attention: float
    mlp: float
    scores: float
    whole: bool
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
    width, norms = model.d_model, NORMS[model.norm.placement]
    for_mlp = sum("mlp" in name for name in norms)
    scores, norm = _scores(model.attention, length, cpu, apart), _norm(model.norm, width) + apart * width
    attention = width + (len(norms) - for_mlp) * norm + _attention(model) + scores
    mlp = width + for_mlp * norm + _mlp(width, model.mlp)
    return Kept(attention, mlp, scores, model.attention.kernel == "dot_product", _products(model))


def _norm(norm: Norm, width: int) -> int:
    return (NORM[norm.kind] - (norm.weight == "none")) * width


def _attention(model: Model) -> float:
    """Returns what attention keeps but for scores: what the kernel reads, and what it returns."""
    attention, heads = model.attention, model.attention.n_heads
    maps = 2 if attention.kind == "differential" else 1
    key_heads = heads if attention.kind == "mla" else attention.n_kv_heads
    q, k = maps * heads * query_width(attention), maps * key_heads * query_width(attention)
    value_heads, value_width = value_shape(attention)
    v, y = value_heads * value_width, heads * value_width
    if attention.kernel == "dot_product":
        found = q + k + maps * v + y
    elif attention.kernel == "fused":
        found = q + 2.5 * (k + maps * v) + y  # each block of queries has its own slice of keys and values
    else:  # read twice, by the loop forward and the loop backward; its result with the logarithm of the sums
        found = 2 * (q + k) + (1 + maps) * v + maps * (y + heads) + y
    if attention.kind == "mla":
        found += 3 * (attention.kv_rank + (attention.q_rank or 0))
    if attention.kind == "differential":
        found += 5 * y  # both maps' results, their difference, its norm
    if attention.qk_norm != "none":
        found += 4 * (q + k)  # as they come, normalised, scaled, turned
    if attention.gate != "none":
        found += y
    return found + (v if attention.value_residual else 0)


def _scores(attention: Attention, length: int, cpu: bool, apart: bool) -> float:
    """Returns the kept scores of a token: their exponentials, the softmax, and that with the masked ones out."""
    maps = 2 if attention.kind == "differential" else 1
    if attention.kernel == "dot_product":
        return maps * (3 + bool(attention.softcap)) * attention.n_heads * length
    if attention.kernel == "fused" and cpu:  # exponentials and softmax, in blocks of queries with the keys they see
        return maps * (2 + apart) * attention.n_heads * length * (BLOCKS + 1) / (2 * BLOCKS)
    return 0


def _mlp(width: int, mlp: Mlp) -> float:
    if mlp.kind != "moe":
        return MLP[mlp.kind] * mlp.hidden
    rows = mlp.top_k * PADDED
    routed = rows * ((MLP[mlp.expert] + 1) * mlp.hidden + 3 * width) + mlp.top_k * width
    return routed + mlp.shared_experts * MLP[mlp.expert] * mlp.hidden


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
