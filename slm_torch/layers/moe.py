"""Mixture of experts, without a limit on the tokens per expert."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import BIAS, Spec, matrix, residual_matrix
from slm_torch.layers.clipped_swiglu import ClippedSwigluMLP, clipped_swiglu
from slm_torch.layers.dense import DenseMLP, GatedMLP
from slm_torch.layers.geglu import GegluMLP, geglu
from slm_torch.layers.gelu import GeluMLP
from slm_torch.layers.linear import Linear
from slm_torch.layers.relu import ReluMLP
from slm_torch.layers.relu2 import Relu2MLP, relu2
from slm_torch.layers.swiglu import SwigluMLP, swiglu
from slm_torch.numerics import wide
from slm_torch.params import declare

EXPERT: dict[str, tuple[type[DenseMLP | GatedMLP], Callable[..., Tensor]]] = {
    "gelu": (GeluMLP, gelu),
    "relu": (ReluMLP, torch.relu),
    "relu2": (Relu2MLP, relu2),
    "swiglu": (SwigluMLP, swiglu),
    "geglu": (GegluMLP, geglu),
    "clipped_swiglu": (ClippedSwigluMLP, clipped_swiglu),
}
"""{mlp.expert: (its dense MLP, its activation of up, or of gate and up)}."""
SCORES = {"softmax": lambda logits: torch.softmax(logits, -1), "sigmoid": torch.sigmoid}
TINY = 1e-20  # avoids 0 / 0 if all sigmoids of a token underflow


class Routing(NamedTuple):
    """The router's result for each token, float32 or wider; `chosen` lists the experts, the best first."""

    logits: Float[Tensor, "tokens experts"]
    scores: Float[Tensor, "tokens experts"]
    chosen: Int[Tensor, "tokens top_k"]


class Rows(NamedTuple):
    """The rows of the experts, sorted by expert; a pair is a token and one of its choices.

    Args:
      pair: the pair in each row.
      row: the row of each pair.
      sizes: rows of each expert.
    """

    pair: Int[Tensor, "rows"]
    row: Int[Tensor, "pairs"]
    sizes: list[int]


class ExpertLinear(nn.Module):
    """Maps each row by its expert e: y = x W_e + b_e, with W stored as [experts, in, out]."""

    def __init__(self, experts: int, d_in: int, d_out: int, spec: Spec, bias: bool):
        super().__init__()
        self.weight = declare((experts, d_in, d_out), spec)
        self.bias = declare((experts, d_out), BIAS) if bias else None

    def forward(self, x: Float[Tensor, "rows in"], sizes: list[int]) -> Float[Tensor, "rows out"]:
        """Multiplies each row by its expert's matrix; `sizes` counts the rows of each expert."""
        biases = [None] * len(sizes) if self.bias is None else self.bias.unbind()
        pieces = []
        for piece, weight, bias in zip(x.split(sizes), self.weight.unbind(), biases, strict=True):
            if len(piece):
                y = piece @ weight.to(x.dtype)
                pieces.append(y if bias is None else y + bias.to(x.dtype))
        return torch.cat(pieces)


class MixtureOfExperts(nn.Module):
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

    Rows are sorted by expert, and each matrix product takes the rows of one expert.

    Args:
      layer: gives d_model, and in `mlp` the experts, the router and the losses.
    """

    def __init__(self, layer: LayerSpec):
        super().__init__()
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

    def forward(
        self, x: Float[Tensor, "batch time d_model"]
    ) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, ""] | float]:
        """Computes the output, and the auxiliary loss per token, which is 0 if no gradient is recorded."""
        tokens = x.flatten(0, 1)
        routing = self.route(tokens)
        # Evaluation and decoding read no auxiliary loss.
        auxiliary_loss = self.auxiliary_loss(routing) if torch.is_grad_enabled() else 0.0
        y = self.expert(tokens, routing.chosen)
        y = (y * self.weights(routing).to(y.dtype)[..., None]).sum(1).view_as(x)
        if self.shared is not None:
            shared = self.shared(x)[0]
            y = y + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)
        return y, auxiliary_loss

    def auxiliary_loss(self, routing: Routing) -> Float[Tensor, ""]:
        """Computes the auxiliary loss of this layer per token, float32 or wider.

        The balance bias adds exactly 0, but its gradient is the load of each expert minus the mean load.
        """
        logits, scores, chosen = routing
        experts = torch.arange(self.experts, device=chosen.device)
        counts = (chosen[..., None] == experts).sum((0, 1)).to(logits.dtype)
        total = logits.new_zeros(())
        if self.balance_loss:
            probability = scores / (scores.sum(-1, keepdim=True) + TINY)
            balanced = self.experts * (counts / chosen.numel() * probability.mean(0)).sum()
            total = total + self.balance_loss * balanced
        if self.router_z_loss:
            total = total + self.router_z_loss * logits.logsumexp(-1).square().mean()
        if self.balance is not None:
            # Whole numbers until they are divided: an expert at the mean load gets exactly 0, whose sign is 0.
            excess = (counts * self.experts - chosen.numel()) / (len(chosen) * self.experts)
            moved = (self.balance.to(excess.dtype) * excess).sum()
            total = total + (moved - moved.detach())
        return total

    def route(self, x: Float[Tensor, "tokens d_model"]) -> Routing:
        """Chooses the experts of each token; of equal scores the lower expert comes first."""
        logits = self.router(x.to(wide(x.dtype)))
        scores = self.scores(logits)
        ranked = scores.detach() if self.balance is None else (scores + self.balance.to(scores.dtype)).detach()
        if self.groups > 1:
            ranked = in_best_groups(ranked, self.groups, self.top_groups)
        chosen = ranked.argsort(dim=-1, descending=True, stable=True)[:, : self.top_k]
        return Routing(logits, scores, chosen)

    def weights(self, routing: Routing) -> Float[Tensor, "tokens top_k"]:
        """Computes the factor of each chosen expert's output."""
        weights = routing.scores.gather(1, routing.chosen)
        if self.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + TINY)
        return weights if self.routed_scale == 1 else self.routed_scale * weights

    @torch.compiler.disable  # the sizes differ from batch to batch, and each size would be compiled anew
    def expert(
        self, x: Float[Tensor, "tokens d_model"], chosen: Int[Tensor, "tokens top_k"]
    ) -> Float[Tensor, "tokens top_k d_model"]:
        """Computes the output of each token's chosen experts."""
        rows = rows_by_expert(chosen.flatten(), self.experts)
        # Both reorderings are permutations, so that no gradient is a sum in an arbitrary order.
        x = x.repeat_interleave(self.top_k, 0).index_select(0, rows.pair)
        h = self.up_proj(x, rows.sizes)
        h = self.activation(h) if self.gate_proj is None else self.activation(self.gate_proj(x, rows.sizes), h)
        y = self.down_proj(h, rows.sizes)
        return y.index_select(0, rows.row).unflatten(0, (-1, self.top_k))


def in_best_groups(
    ranked: Float[Tensor, "tokens experts"], groups: int, top_groups: int
) -> Float[Tensor, "tokens experts"]:
    """Sets the scores of experts outside the best groups of each token to -inf (DeepSeek-V3 2024).

    A group is `experts / groups` consecutive experts. Its score is the sum of its two best scores. Of equal groups the
    lower is better.
    """
    grouped = ranked.unflatten(1, (groups, -1))
    best = grouped.topk(2).values.sum(-1).argsort(dim=-1, descending=True, stable=True)[:, :top_groups]
    kept = (best[..., None] == torch.arange(groups, device=ranked.device)).any(1)
    return torch.where(kept[..., None], grouped, -torch.inf).flatten(1)


def rows_by_expert(chosen: Int[Tensor, "pairs"], experts: int) -> Rows:
    """Sorts pairs by their experts, `chosen`."""
    pair = chosen.argsort(stable=True)
    counts = (chosen[:, None] == torch.arange(experts, device=chosen.device)).sum(0)
    return Rows(pair, pair.argsort(), counts.tolist())
