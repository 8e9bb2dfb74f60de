"""Mixture of experts, without a limit on the tokens per expert."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import BIAS, Spec, matrix, residual_matrix
from slm_flax.layers.clipped_swiglu import ClippedSwigluMLP, clipped_swiglu
from slm_flax.layers.dense import DenseMLP, GatedMLP
from slm_flax.layers.geglu import GegluMLP, geglu
from slm_flax.layers.gelu import GeluMLP
from slm_flax.layers.linear import Linear
from slm_flax.layers.relu import ReluMLP
from slm_flax.layers.relu2 import Relu2MLP, relu2
from slm_flax.layers.swiglu import SwigluMLP, swiglu
from slm_flax.numerics import wide
from slm_flax.params import declare

EXPERT: dict[str, tuple[type[DenseMLP | GatedMLP], Callable[..., Array]]] = {
    "gelu": (GeluMLP, partial(jax.nn.gelu, approximate=False)),
    "relu": (ReluMLP, jax.nn.relu),
    "relu2": (Relu2MLP, relu2),
    "swiglu": (SwigluMLP, swiglu),
    "geglu": (GegluMLP, geglu),
    "clipped_swiglu": (ClippedSwigluMLP, clipped_swiglu),
}
"""{mlp.expert: (its dense MLP, its activation of up, or of gate and up)}."""
SCORES = {"softmax": lambda logits: jax.nn.softmax(logits, -1), "sigmoid": jax.nn.sigmoid}
TINY = 1e-20  # avoids 0 / 0 if all sigmoids of a token underflow
SMALLEST_BLOCK = 16


class Routing(NamedTuple):
    """The router's result for each token, float32 or wider; `chosen` lists the experts, the best first."""

    logits: Float[Array, "tokens experts"]
    scores: Float[Array, "tokens experts"]
    chosen: Int[Array, "tokens top_k"]


class Rows(NamedTuple):
    """The rows of the experts, sorted by expert, in blocks of one expert; a pair is a token and one of its choices.

    Args:
      pair: the pair in each row; past the last pair in a row that fills up a block.
      row: the row of each pair.
      expert: the expert of each block.
    """

    pair: Int[Array, "rows"]
    row: Int[Array, "pairs"]
    expert: Int[Array, "blocks"]


class ExpertLinear(nnx.Module):
    """Maps each row by its expert e: y = x W_e + b_e, with W stored as [experts, in, out]."""

    def __init__(self, experts: int, d_in: int, d_out: int, spec: Spec, bias: bool):
        self.weight = declare((experts, d_in, d_out), spec)
        self.bias = declare((experts, d_out), BIAS) if bias else None

    def __call__(self, x: Float[Array, "rows in"], expert: Int[Array, "blocks"]) -> Float[Array, "rows out"]:
        """Multiplies each row by its expert's matrix; `expert` names the expert of each block of rows."""
        y = _blocks_matmul(x.reshape(len(expert), -1, x.shape[-1]), self.weight[...], expert)
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)[expert][:, None]
        return y.reshape(len(x), -1)


class MixtureOfExperts(nnx.Module):
    """Sends each token to its best experts, and drops none (Shazeer et al. 2017, https://arxiv.org/abs/1701.06538).

        y = routed_scale sum_{i in top_k(s + b)} w_i expert_i(x) + g shared(x),  w_i = s_i / sum_{j chosen} s_j

    s is the softmax or sigmoid of the logits l = x W, with a bias in gpt-oss (OpenAI 2025,
    https://arxiv.org/abs/2508.10925). b is the balance bias (Wang et al. 2024, https://arxiv.org/abs/2408.15664). The
    shared expert is DeepSeekMoE's (Dai et al. 2024, https://arxiv.org/abs/2401.06066). Its weight g is 1, or with
    mlp.shared_gate sigmoid(x v), v [d_model, 1] (Qwen2-MoE; Yang et al. 2024, https://arxiv.org/abs/2407.10671). The
    choice of a token may be limited to the best groups of experts (DeepSeek-V3; DeepSeek-AI 2024,
    https://arxiv.org/abs/2412.19437).

    The auxiliary loss per token is

        balance_loss experts sum_i f_i P_i + router_z_loss mean(logsumexp(l)^2)

    The first term is by Fedus et al. 2021 (https://arxiv.org/abs/2101.03961): f_i is the share of the choices that fall
    on expert i, and P_i its mean probability. The second is by Zoph et al. 2022 (https://arxiv.org/abs/2202.08906).

    Rows are sorted by expert. Zeros fill up the rows of each expert to whole blocks, so that shapes are static, and
    each matrix product takes one block. (`jax.lax.ragged_dot` runs every expert on every row on a CPU.)

    Args:
      layer: gives d_model, and in `mlp` the experts, the router and the losses.
    """

    def __init__(self, layer: LayerSpec):
        mlp = layer.mlp
        dense, self.activation = EXPERT[mlp.expert]
        inward = (mlp.experts, layer.d_model, mlp.hidden, matrix(layer), mlp.bias)
        self.router = Linear(layer.d_model, mlp.experts, matrix(layer), mlp.router_bias)
        self.balance = declare((mlp.experts,), Spec("balance", step=mlp.balance_bias)) if mlp.balance_bias else None
        self.gate_proj = ExpertLinear(*inward) if issubclass(dense, GatedMLP) else None
        self.up_proj = ExpertLinear(*inward)
        self.down_proj = ExpertLinear(mlp.experts, mlp.hidden, layer.d_model, residual_matrix(layer), mlp.bias)
        width = mlp.shared_experts * mlp.hidden
        shared = dataclasses.replace(mlp, kind=mlp.expert, hidden=width)
        self.shared = dense(dataclasses.replace(layer, mlp=shared)) if width else None
        self.shared_gate = Linear(layer.d_model, 1, matrix(layer), bias=False) if mlp.shared_gate else None
        self.experts, self.top_k = mlp.experts, mlp.top_k
        self.groups, self.top_groups = mlp.groups, mlp.top_groups
        self.scores = SCORES[mlp.router]
        self.renormalise, self.routed_scale = mlp.renormalise, mlp.routed_scale
        self.balance_loss, self.router_z_loss = mlp.balance_loss, mlp.router_z_loss

    def __call__(
        self, x: Float[Array, "batch time d_model"]
    ) -> tuple[Float[Array, "batch time d_model"], Float[Array, ""]]:
        """Computes the output, and the auxiliary loss per token."""
        tokens = x.reshape(-1, x.shape[-1])
        routing = self.route(tokens)
        auxiliary_loss = self.auxiliary_loss(routing)
        y = self.expert(tokens, routing.chosen)
        y = (y * self.weights(routing).astype(y.dtype)[..., None]).sum(1).reshape(x.shape)
        if self.shared is not None:
            shared = self.shared(x)[0]
            y = y + (shared if self.shared_gate is None else jax.nn.sigmoid(self.shared_gate(x)) * shared)
        return y, auxiliary_loss

    def auxiliary_loss(self, routing: Routing) -> Float[Array, ""]:
        """Computes the auxiliary loss of this layer per token, float32 or wider.

        The balance bias adds exactly 0, but its gradient is the load of each expert minus the mean load.
        """
        logits, scores, chosen = routing
        counts = (chosen[..., None] == jnp.arange(self.experts)).sum((0, 1)).astype(logits.dtype)
        total = jnp.zeros((), logits.dtype)
        if self.balance_loss:
            probability = scores / (scores.sum(-1, keepdims=True) + TINY)
            balanced = self.experts * (counts / chosen.size * probability.mean(0)).sum()
            total = total + self.balance_loss * balanced
        if self.router_z_loss:
            total = total + self.router_z_loss * jnp.square(jax.nn.logsumexp(logits, -1)).mean()
        if self.balance is not None:
            # Whole numbers until they are divided: an expert at the mean load gets exactly 0, whose sign is 0.
            excess = (counts * self.experts - chosen.size) / (len(chosen) * self.experts)
            moved = (self.balance[...].astype(excess.dtype) * excess).sum()
            total = total + (moved - jax.lax.stop_gradient(moved))
        return total

    def route(self, x: Float[Array, "tokens d_model"]) -> Routing:
        """Chooses the experts of each token; of equal scores the lower expert comes first."""
        logits = self.router(x.astype(wide(x.dtype)))
        scores = self.scores(logits)
        ranked = scores if self.balance is None else scores + self.balance[...].astype(scores.dtype)
        ranked = jax.lax.stop_gradient(ranked)
        if self.groups > 1:
            ranked = in_best_groups(ranked, self.groups, self.top_groups)
        _, chosen = jax.lax.top_k(ranked, self.top_k)
        return Routing(logits, scores, chosen)

    def weights(self, routing: Routing) -> Float[Array, "tokens top_k"]:
        """Computes the factor of each chosen expert's output."""
        weights = jnp.take_along_axis(routing.scores, routing.chosen, 1)
        if self.renormalise:
            weights = weights / (weights.sum(-1, keepdims=True) + TINY)
        return weights if self.routed_scale == 1 else self.routed_scale * weights

    def expert(
        self, x: Float[Array, "tokens d_model"], chosen: Int[Array, "tokens top_k"]
    ) -> Float[Array, "tokens top_k d_model"]:
        """Computes the output of each token's chosen experts."""
        rows = rows_by_expert(chosen.reshape(-1), self.experts)
        x = _reorder(x.repeat(self.top_k, 0), rows.pair, rows.row)
        h = self.up_proj(x, rows.expert)
        h = self.activation(h) if self.gate_proj is None else self.activation(self.gate_proj(x, rows.expert), h)
        y = self.down_proj(h, rows.expert)
        return _reorder(y, rows.row, rows.pair).reshape(-1, self.top_k, x.shape[-1])


def in_best_groups(
    ranked: Float[Array, "tokens experts"], groups: int, top_groups: int
) -> Float[Array, "tokens experts"]:
    """Sets the scores of experts outside the best groups of each token to -inf (DeepSeek-V3 2024).

    A group is `experts / groups` consecutive experts. Its score is the sum of its two best scores. Of equal groups the
    lower is better.
    """
    grouped = ranked.reshape(len(ranked), groups, -1)
    _, best = jax.lax.top_k(jax.lax.top_k(grouped, 2)[0].sum(-1), top_groups)
    kept = (best[..., None] == jnp.arange(groups)).any(1)
    return jnp.where(kept[..., None], grouped, -jnp.inf).reshape(ranked.shape)


def rows_by_expert(chosen: Int[Array, "pairs"], experts: int) -> Rows:
    """Sorts pairs by their experts, `chosen`, and fills each expert's rows up to whole blocks.

    A block is about a quarter of an expert's mean share. So padding costs at most a quarter, and about an eighth on
    average.
    """
    pairs = len(chosen)
    block = SMALLEST_BLOCK * max(1, pairs // (4 * experts * SMALLEST_BLOCK))
    blocks = (pairs + min(experts, pairs) * (block - 1)) // block  # enough for any routing
    counts = (chosen[:, None] == jnp.arange(experts)).sum(0)
    used = -(-counts // block)
    last_block = jnp.cumsum(used)
    padding = block * (last_block - used) - (jnp.cumsum(counts) - counts)  # rows of it before an expert's first
    order = jnp.argsort(chosen, stable=True)
    row_of_sorted = jnp.arange(pairs) + padding[chosen[order]]
    pair = jnp.full(blocks * block, pairs).at[row_of_sorted].set(order, unique_indices=True)
    row = jnp.zeros_like(order).at[order].set(row_of_sorted, unique_indices=True)
    expert = jnp.searchsorted(last_block, jnp.arange(blocks), side="right")
    return Rows(pair, row, jnp.minimum(expert, experts - 1))


@jax.custom_vjp
def _reorder(x: Array, index: Array, inverse: Array) -> Array:
    """Returns the rows x[index], and zeros if an index is past the end.

    `inverse` takes the gradient back, row by row.
    """
    return x.at[index].get(mode="fill", fill_value=0)


def _reorder_forward(x: Array, index: Array, inverse: Array) -> tuple[Array, tuple[Array, Array]]:
    return _reorder(x, index, inverse), (index, inverse)


def _reorder_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, None, None]:
    index, inverse = saved
    return _reorder(dy, inverse, index), None, None


_reorder.defvjp(_reorder_forward, _reorder_backward)


@jax.custom_vjp
def _blocks_matmul(
    x: Float[Array, "blocks size in"], weight: Float[Array, "experts in out"], expert: Int[Array, "blocks"]
) -> Float[Array, "blocks size out"]:
    """Returns x[i] @ weight[expert[i]], one block after the other, so that no block copies a matrix.

    JAX's derivative would add up a gradient of all experts for each block.
    """

    def step(_: None, block: tuple[Array, Array]) -> tuple[None, Array]:
        x, expert = block
        return None, x @ weight[expert].astype(x.dtype)

    return jax.lax.scan(step, None, (x, expert))[1]


def _blocks_forward(x: Array, weight: Array, expert: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _blocks_matmul(x, weight, expert), (x, weight, expert)


def _blocks_backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, None]:
    x, weight, expert = saved
    dtype = wide(x.dtype)

    def step(dw: Array, block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x, dy, expert = block
        dx = dy @ weight[expert].astype(dy.dtype).T
        return dw.at[expert].add(jnp.matmul(x.T, dy, preferred_element_type=dtype)), dx

    dw, dx = jax.lax.scan(step, jnp.zeros(weight.shape, dtype), (x, dy, expert))
    return dx, dw.astype(weight.dtype), None


_blocks_matmul.defvjp(_blocks_forward, _blocks_backward)
