"""Cross-entropy of the next token, and the auxiliary losses, as sums: those of micro-batches add up exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from slm_core.protocols import IGNORE
from slm_flax.layers.dropout import DropoutKey
from slm_flax.model import Transformer
from slm_flax.params import Params, bind


class Losses(NamedTuple):
    """Sums over the targets that are not IGNORE, float32 or wider.

    Args:
      tokens: -log p(target) in nats, which is reported.
      objective: the same plus the auxiliary losses, which is minimised.
    """

    tokens: Float[Array, ""]
    objective: Float[Array, ""]


def batch_losses(
    model: Transformer, values: Params, tokens: Int[Array, "batch columns"], key: DropoutKey | None, chunk: int | None
) -> Losses:
    """Computes the losses of a batch: column t + 1 of `tokens` is the target of column t.

    Args:
      model: without its weights.
      values: the model's parameters, by canonical name.
      tokens: token ids, or IGNORE.
      key: turns dropout on.
      chunk: see `loss_sums`.
    """
    model = bind(model, values)
    inputs = jnp.maximum(tokens[:, :-1], 0)  # IGNORE has no embedding: it reads as token 0
    hidden, auxiliary_loss = model(inputs, key=key)
    return loss_sums(model, hidden, auxiliary_loss, tokens[:, 1:], chunk)


def loss_sums(
    model: Transformer,
    hidden: Float[Array, "batch time d_model"],
    auxiliary_loss: Float[Array, ""] | float,
    targets: Int[Array, "batch time"],
    chunk: int | None,
) -> Losses:
    """Computes the losses of a batch from `hidden` and `auxiliary_loss`, which the model returned.

    With a chunk above 0 the logits of at most `chunk` tokens exist at once. The backward pass computes them again,
    chunk by chunk.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    valid = (targets != IGNORE).sum()

    def piece_sums(piece: Array, target: Array) -> Losses:
        return sums(model.logits(piece), target, model.z_loss)

    if not chunk:
        total = piece_sums(hidden, targets)
    else:
        by_piece = jax.lax.map(lambda pieces: jax.checkpoint(piece_sums)(*pieces), chunks(hidden, targets, chunk))
        total = Losses(*(values.sum() for values in by_piece))
    return total._replace(objective=total.objective + auxiliary_loss * valid)


def sums(logits: Float[Array, "n vocab"], targets: Int[Array, "n"], z_loss: float) -> Losses:
    """Computes the losses of some tokens from their logits.

    z_loss adds z_loss logsumexp(logits)^2 per token to the objective (PaLM; Chowdhery et al. 2022,
    https://arxiv.org/abs/2204.02311).
    """
    tokens = token_losses(logits, targets).sum()
    if not z_loss:
        return Losses(tokens, tokens)
    squares = jnp.where(targets == IGNORE, 0, jnp.square(jax.nn.logsumexp(logits, axis=-1)))
    return Losses(tokens, tokens + z_loss * squares.sum())


def token_scores(
    model: Transformer, values: Params, tokens: Int[Array, "batch columns"], chunk: int | None
) -> tuple[Float[Array, "batch time"], Bool[Array, "batch time"]]:
    """Computes log p(target) and whether the target is the likeliest token; see `slm_core.protocols.Scorer`."""
    model = bind(model, values)
    hidden, _ = model(jnp.maximum(tokens[:, :-1], 0), key=None)
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), tokens[:, 1:].reshape(-1)
    pieces = chunks(hidden, targets, chunk or len(targets))
    scored = jax.lax.map(lambda piece: piece_scores(model.logits(piece[0]), piece[1]), pieces)
    logs, greedy = (parts.reshape(-1)[: len(targets)].reshape(len(tokens), -1) for parts in scored)
    return logs, greedy


def piece_scores(
    logits: Float[Array, "n vocab"], targets: Int[Array, "n"]
) -> tuple[Float[Array, "n"], Bool[Array, "n"]]:
    """Computes log p(target) of some tokens, 0 if it is IGNORE, and whether the target is the likeliest token."""
    return -token_losses(logits, targets), logits.argmax(-1) == targets


def chunks(
    hidden: Float[Array, "n d_model"], targets: Int[Array, "n"], chunk: int
) -> tuple[Float[Array, "pieces chunk d_model"], Int[Array, "pieces chunk"]]:
    """Splits tokens into pieces of `chunk`. The last is filled with targets that are IGNORE."""
    padding = -len(targets) % chunk
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, chunk, hidden.shape[-1])
    return hidden, jnp.pad(targets, (0, padding), constant_values=IGNORE).reshape(-1, chunk)


def token_losses(logits: Float[Array, "n vocab"], targets: Int[Array, "n"]) -> Float[Array, "n"]:
    """Computes log sum exp(logits) - logits[target], and 0 if the target is IGNORE."""
    # Picking the target by a comparison fuses into the reduction; an index would scatter in the backward pass.
    is_target = jnp.arange(logits.shape[-1]) == targets[:, None]
    target_logits = jnp.where(is_target, logits, 0).sum(-1)
    return jnp.where(targets == IGNORE, 0, jax.nn.logsumexp(logits, axis=-1) - target_logits)
