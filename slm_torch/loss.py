"""Cross-entropy of the next token, as a sum, so that micro-batches add up exactly, and what training adds to it."""

from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import nll_loss
from torch.utils.checkpoint import checkpoint

from slm_core.protocols import IGNORE
from slm_torch.layers.dropout import DropoutKey
from slm_torch.model import Transformer


class Losses(NamedTuple):
    """Sums over the targets that are not IGNORE, float32 or wider.

    Args:
      tokens: -log p(target), nats: what is reported.
      objective: that and the auxiliary losses: what is minimised.
    """

    tokens: Float[Tensor, ""]
    objective: Float[Tensor, ""]


def batch_losses(
    model: Transformer, tokens: Int[Tensor, "batch columns"], key: DropoutKey | None, chunk: int | None
) -> Losses:
    """Returns the losses of a batch: column t + 1 of `tokens` is the target of column t.

    Args:
      key: turns dropout on.
      chunk: see `loss_sums`.
    """
    inputs = tokens[:, :-1].clamp(min=0)  # IGNORE has no embedding: it reads as token 0
    hidden, auxiliary_loss = model(inputs, key=key)
    return loss_sums(model, hidden, auxiliary_loss, tokens[:, 1:], chunk)


def loss_sums(
    model: Transformer,
    hidden: Float[Tensor, "batch time d_model"],
    auxiliary_loss: Float[Tensor, ""] | float,
    targets: Int[Tensor, "batch time"],
    chunk: int | None,
) -> Losses:
    """Returns the losses of a batch; `hidden` and `auxiliary_loss` are what the model returns.

    With a chunk above 0 the logits of at most `chunk` tokens exist at once. The backward pass computes them again, a
    chunk at a time.
    """
    hidden, targets = hidden.flatten(0, 1), targets.flatten()

    def piece_sums(piece: Tensor, target: Tensor) -> Losses:
        return sums(model.logits(piece), target, model.z_loss)

    if not chunk:
        total = piece_sums(hidden, targets)
    else:
        pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        found = [checkpoint(piece_sums, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in pieces]
        total = Losses(*(reduce(torch.add, values) for values in zip(*found, strict=True)))
    return total._replace(objective=total.objective + auxiliary_loss * (targets != IGNORE).sum())


def sums(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"], z_loss: float) -> Losses:
    """Returns the losses of some tokens.

    z_loss adds z logsumexp(logits)^2 per token to the objective (PaLM; Chowdhery et al. 2022,
    https://arxiv.org/abs/2204.02311).
    """
    tokens = token_losses(logits, targets).sum()
    if not z_loss:
        return Losses(tokens, tokens)
    squares = torch.where(targets == IGNORE, 0, logits.logsumexp(-1).square())
    return Losses(tokens, tokens + z_loss * squares.sum())


def token_losses(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Returns log sum exp(logits) - logits[target], and 0 if the target is IGNORE."""
    return _TokenLosses.apply(logits, targets)  # pyrefly: ignore[bad-return]  (torch leaves its type open)


class _TokenLosses(torch.autograd.Function):
    """PyTorch's cross-entropy, whose gradient takes the place of what it saved instead of two tensors as large."""

    @staticmethod
    def forward(ctx, logits, targets):
        logs = torch.log_softmax(logits, dim=-1)
        ctx.save_for_backward(logs, targets)
        return nll_loss(logs, targets, ignore_index=IGNORE, reduction="none")

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # pyrefly: ignore[bad-override]  (torch passes one gradient per result)
        logs, targets = ctx.saved_tensors
        gradient = torch.where(targets == IGNORE, 0, gradient)[:, None]
        found = logs.exp_()  # a second backward pass is an error: autograd sees that what it saved has changed
        found.scatter_add_(1, targets.clamp(min=0)[:, None], -torch.ones_like(gradient))
        return found.mul_(gradient), None
