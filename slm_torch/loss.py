"""Cross-entropy of the next token, as a sum, so that micro-batches add up exactly."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from slm_core.engine import IGNORE
from slm_torch.model import Transformer


def loss_sum(
    model: Transformer,
    hidden: Float[Tensor, "batch time d_model"],
    targets: Int[Tensor, "batch time"],
    chunk: int,
) -> Float[Tensor, ""]:
    """Returns the sum of -log p(target) in nats over the targets that are not IGNORE, float32 or wider.

    With chunk > 0 the logits of at most `chunk` tokens exist at once, in the backward pass too: they are computed again
    there.
    """
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    if not chunk:
        return token_losses(model.logits(hidden), targets).sum()
    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)

    def piece_loss(piece: Tensor, target: Tensor) -> Tensor:
        return token_losses(model.logits(piece), target).sum()

    return sum(checkpoint(piece_loss, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in pieces)


def token_losses(logits: Float[Tensor, "n vocab"], targets: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Returns log sum exp(logits) - logits[target], and 0 where the target is IGNORE."""
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")
