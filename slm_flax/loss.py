"""Cross-entropy of the next token, as a sum, so that micro-batches add up exactly."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from slm_core.engine import IGNORE
from slm_flax.model import Transformer


def loss_sum(
    model: Transformer,
    hidden: Float[Array, "batch time d_model"],
    targets: Int[Array, "batch time"],
    chunk: int,
) -> Float[Array, ""]:
    """Returns the sum of -log p(target) in nats over the targets that are not IGNORE, float32 or wider.

    With chunk > 0 the logits of at most `chunk` tokens exist at once, in the backward pass too: they are computed again
    there.
    """
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if not chunk:
        return token_losses(model.logits(hidden), targets).sum()
    padding = -len(targets) % chunk
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, chunk, hidden.shape[-1])
    targets = jnp.pad(targets, (0, padding), constant_values=IGNORE).reshape(-1, chunk)

    @jax.checkpoint
    def piece_loss(piece: Array, target: Array) -> Array:
        return token_losses(model.logits(piece), target).sum()

    return jax.lax.map(lambda pieces: piece_loss(*pieces), (hidden, targets)).sum()


def token_losses(logits: Float[Array, "n vocab"], targets: Int[Array, "n"]) -> Float[Array, "n"]:
    """Returns log sum exp(logits) - logits[target], and 0 where the target is IGNORE."""
    # Picking the target by a comparison fuses into the reduction; an index would scatter in the backward pass.
    is_target = jnp.arange(logits.shape[-1]) == targets[:, None]
    target_logits = jnp.where(is_target, logits, 0).sum(-1)
    return jnp.where(targets == IGNORE, 0, jax.nn.logsumexp(logits, axis=-1) - target_logits)
