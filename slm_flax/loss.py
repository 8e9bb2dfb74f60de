"""Cross-entropy of the next token, and the auxiliary losses, as sums: those of micro-batches add up exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from slm_core.protocols import FIRST, IGNORE, begins_document, unscored
from slm_flax.layers.documents import numbered
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


class Scores(NamedTuple):
    """Sums over the targets that are not IGNORE, for an evaluation.

    Args:
      tokens: -log p(target) in nats.
      correct: number of targets that have the largest logit; of equal logits, that of the lowest id.
    """

    tokens: Float[Array, ""]
    correct: Int[Array, ""]


def batch_losses(
    model: Transformer, values: Params, tokens: Int[Array, "batch columns"], key: DropoutKey | None, chunk: int | None
) -> Losses:
    """Computes the losses of a batch: column t + 1 of `tokens` is the target of column t.

    Args:
      model: without its weights.
      values: the model's parameters, by canonical name.
      tokens: token ids, `unscored` ones, `first_of_document` ones, or IGNORE.
      key: turns dropout on.
      chunk: see `loss_sums`.
    """
    model = bind(model, values)
    hidden, auxiliary_loss = read(model, tokens[:, :-1], key)
    return loss_sums(model, hidden, auxiliary_loss, target_ids(tokens[:, 1:]), chunk)


def batch_scores(model: Transformer, values: Params, tokens: Int[Array, "batch columns"], chunk: int | None) -> Scores:
    """Computes what an evaluation reports of a batch, without dropout; the arguments are those of `batch_losses`."""
    model = bind(model, values)
    hidden, _ = read(model, tokens[:, :-1], None)
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), target_ids(tokens[:, 1:]).reshape(-1)
    if not chunk:
        return scores(model.logits(hidden), targets)
    by_piece = jax.lax.map(lambda pair: scores(model.logits(pair[0]), pair[1]), pieces(hidden, targets, chunk))
    return Scores(*(values.sum() for values in by_piece))


def read(
    model: Transformer, tokens: Int[Array, "batch time"], key: DropoutKey | None
) -> tuple[Float[Array, "batch time d_model"], Float[Array, ""] | float]:
    """Runs the model over the columns of a batch. With data.document_mask it keeps their documents apart."""
    documents = numbered(begins_document(tokens)) if model.document_mask else None
    return model(input_ids(tokens), key=key, documents=documents)


def input_ids(tokens: Int[Array, "batch time"]) -> Int[Array, "batch time"]:
    """Returns what the model reads: ids, without the marks of some. IGNORE reads as token 0."""
    return jnp.maximum(jnp.maximum(tokens, unscored(tokens)), 0) % FIRST


def target_ids(tokens: Int[Array, "batch time"]) -> Int[Array, "batch time"]:
    """Returns the targets: ids, and IGNORE in place of marked ones."""
    return jnp.maximum(tokens, IGNORE)


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
        by_piece = jax.lax.map(lambda pair: jax.checkpoint(piece_sums)(*pair), pieces(hidden, targets, chunk))
        total = Losses(*(values.sum() for values in by_piece))
    return total._replace(objective=total.objective + auxiliary_loss * valid)


def pieces(
    hidden: Float[Array, "n d_model"], targets: Int[Array, "n"], chunk: int
) -> tuple[Float[Array, "pieces chunk d_model"], Int[Array, "pieces chunk"]]:
    """Cuts tokens into pieces of equal size; what fills the last one has no target."""
    padding = -len(targets) % chunk
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, chunk, hidden.shape[-1])
    return hidden, jnp.pad(targets, (0, padding), constant_values=IGNORE).reshape(-1, chunk)


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


def scores(logits: Float[Array, "n vocab"], targets: Int[Array, "n"]) -> Scores:
    """Computes what an evaluation reports of some tokens from their logits."""
    return Scores(token_losses(logits, targets).sum(), (jnp.argmax(logits, -1) == targets).sum())


def token_scores(
    model: Transformer, values: Params, tokens: Int[Array, "batch columns"], chunk: int | None
) -> tuple[Float[Array, "batch time"], Bool[Array, "batch time"]]:
    """Computes log p(target) and whether the target is the likeliest token; see `slm_core.protocols.Scorer`."""
    model = bind(model, values)
    hidden, _ = read(model, tokens[:, :-1], None)
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), target_ids(tokens[:, 1:]).reshape(-1)
    cut = pieces(hidden, targets, chunk or len(targets))
    scored = jax.lax.map(lambda pair: piece_scores(model.logits(pair[0]), pair[1]), cut)
    logs, greedy = (parts.reshape(-1)[: len(targets)].reshape(len(tokens), -1) for parts in scored)
    return logs, greedy


def piece_scores(
    logits: Float[Array, "n vocab"], targets: Int[Array, "n"]
) -> tuple[Float[Array, "n"], Bool[Array, "n"]]:
    """Computes log p(target) of some tokens, 0 if it is IGNORE, and whether the target is the likeliest token."""
    return -token_losses(logits, targets), logits.argmax(-1) == targets


def token_losses(logits: Float[Array, "n vocab"], targets: Int[Array, "n"]) -> Float[Array, "n"]:
    """Computes log sum exp(logits) - logits[target], and 0 if the target is IGNORE."""
    # Picking the target by a comparison fuses into the reduction; an index would scatter in the backward pass.
    is_target = jnp.arange(logits.shape[-1]) == targets[:, None]
    target_logits = jnp.where(is_target, logits, 0).sum(-1)
    return jnp.where(targets == IGNORE, 0, jax.nn.logsumexp(logits, axis=-1) - target_logits)
