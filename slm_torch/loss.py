"""Cross-entropy of the next token, and the auxiliary losses, as sums: those of micro-batches add up exactly."""

from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import nll_loss
from torch.utils.checkpoint import checkpoint

from slm_core.protocols import FIRST, IGNORE, begins_document, unscored
from slm_torch.layers.documents import numbered
from slm_torch.layers.dropout import DropoutKey
from slm_torch.model import Transformer


class Losses(NamedTuple):
    """Sums over the targets that are not IGNORE, float32 or wider.

    Args:
      tokens: -log p(target) in nats, which is reported.
      objective: the same plus the auxiliary losses, which is minimised.
    """

    tokens: Float[Tensor, ""]
    objective: Float[Tensor, ""]


class Scores(NamedTuple):
    """Sums over the targets that are not IGNORE, for an evaluation.

    Args:
      tokens: -log p(target) in nats.
      correct: number of targets that have the largest logit; of equal logits, that of the lowest id.
    """

    tokens: Float[Tensor, ""]
    correct: Int[Tensor, ""]


def batch_losses(
    model: Transformer, tokens: Int[Tensor, "batch columns"], key: DropoutKey | None, chunk: int | None
) -> Losses:
    """Computes the losses of a batch: column t + 1 of `tokens` is the target of column t.

    Args:
      model: with its weights.
      tokens: token ids, `unscored` ones, `first_of_document` ones, or IGNORE.
      key: turns dropout on.
      chunk: see `loss_sums`.
    """
    hidden, auxiliary_loss = read(model, tokens[:, :-1], key)
    return loss_sums(model, hidden, auxiliary_loss, target_ids(tokens[:, 1:]), chunk)


def batch_scores(model: Transformer, tokens: Int[Tensor, "batch columns"], chunk: int | None) -> Scores:
    """Computes what an evaluation reports of a batch, without dropout; the arguments are those of `batch_losses`."""
    hidden, _ = read(model, tokens[:, :-1], None)
    hidden, targets = hidden.flatten(0, 1), target_ids(tokens[:, 1:]).flatten()
    size = chunk or len(targets)
    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    by_piece = [scores(model.logits(piece), target) for piece, target in pieces]
    return Scores(*(reduce(torch.add, values) for values in zip(*by_piece, strict=True)))


def read(
    model: Transformer, tokens: Int[Tensor, "batch time"], key: DropoutKey | None
) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, ""] | float]:
    """Runs the model over the columns of a batch. With data.document_mask it keeps their documents apart."""
    documents = numbered(begins_document(tokens)) if model.document_mask else None
    return model(input_ids(tokens), key=key, documents=documents)


def input_ids(tokens: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Returns what the model reads: ids, without the marks of some. IGNORE reads as token 0."""
    return torch.maximum(tokens, unscored(tokens)).clamp(min=0) % FIRST


def target_ids(tokens: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Returns the targets: ids, and IGNORE in place of marked ones."""
    return tokens.clamp(min=IGNORE)


def loss_sums(
    model: Transformer,
    hidden: Float[Tensor, "batch time d_model"],
    auxiliary_loss: Float[Tensor, ""] | float,
    targets: Int[Tensor, "batch time"],
    chunk: int | None,
) -> Losses:
    """Computes the losses of a batch from `hidden` and `auxiliary_loss`, which the model returned.

    With a chunk above 0 the logits of at most `chunk` tokens exist at once. The backward pass computes them again,
    chunk by chunk.
    """
    hidden, targets = hidden.flatten(0, 1), targets.flatten()

    def piece_sums(piece: Tensor, target: Tensor) -> Losses:
        return sums(model.logits(piece), target, model.z_loss)

    if not chunk:
        total = piece_sums(hidden, targets)
    else:
        pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        by_piece = [checkpoint(piece_sums, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in pieces]
        total = Losses(*(reduce(torch.add, values) for values in zip(*by_piece, strict=True)))
    return total._replace(objective=total.objective + auxiliary_loss * (targets != IGNORE).sum())


def sums(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"], z_loss: float) -> Losses:
    """Computes the losses of some tokens from their logits.

    z_loss adds z_loss logsumexp(logits)^2 per token to the objective (PaLM; Chowdhery et al. 2022,
    https://arxiv.org/abs/2204.02311).
    """
    tokens = token_losses(logits, targets).sum()
    if not z_loss:
        return Losses(tokens, tokens)
    squares = torch.where(targets == IGNORE, 0, logits.logsumexp(-1).square())
    return Losses(tokens, tokens + z_loss * squares.sum())


def scores(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"]) -> Scores:
    """Computes what an evaluation reports of some tokens from their logits."""
    return Scores(token_losses(logits, targets).sum(), (logits.argmax(-1) == targets).sum())


def token_scores(
    model: Transformer, tokens: Int[Tensor, "batch columns"], chunk: int | None
) -> tuple[Float[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Computes log p(target) and whether the target is the likeliest token; see `slm_core.protocols.Scorer`."""
    hidden, _ = read(model, tokens[:, :-1], None)
    hidden, targets = hidden.flatten(0, 1), target_ids(tokens[:, 1:]).flatten()
    size = chunk or len(targets)
    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    scored = [piece_scores(model.logits(piece), target) for piece, target in pieces]
    logs, greedy = (torch.cat(parts).view(len(tokens), -1) for parts in zip(*scored, strict=True))
    return logs, greedy


def piece_scores(
    logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """Computes log p(target) of some tokens, 0 if it is IGNORE, and whether the target is the likeliest token."""
    return -token_losses(logits, targets), logits.argmax(-1) == targets


def token_losses(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Computes log sum exp(logits) - logits[target], and 0 if the target is IGNORE."""
    # pyrefly: ignore[bad-return]  torch declares no type for `apply`
    return _TokenLosses.apply(logits, targets)


class _TokenLosses(torch.autograd.Function):
    """PyTorch's cross-entropy, whose gradient overwrites the tensor that was saved for it.

    PyTorch's own gradient needs two more tensors of that size.
    """

    @staticmethod
    def forward(ctx, logits, targets):
        logs = torch.log_softmax(logits, dim=-1)
        ctx.save_for_backward(logs, targets)
        return nll_loss(logs, targets, ignore_index=IGNORE, reduction="none")

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]  torch declares that it takes any gradients
    def backward(ctx, gradient):
        logs, targets = ctx.saved_tensors
        gradient = torch.where(targets == IGNORE, 0, gradient)[:, None]
        slope = logs.exp_()  # a second backward pass is an error: autograd sees that a saved tensor has changed
        slope.scatter_add_(1, targets.clamp(min=0)[:, None], -torch.ones_like(gradient))
        return slope.mul_(gradient), None
