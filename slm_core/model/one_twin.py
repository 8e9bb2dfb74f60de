"""Optimizers that one twin alone has: a user's own, optim.kind=torch:NAME or flax:NAME."""

from collections.abc import Collection

from slm_core.config import Config
from slm_core.errors import UserError, nearest


def check_kind(kind: str, framework: str, known: Collection[str]) -> None:
    """Raises UserError if a twin does not have an optimizer.

    Args:
      kind: optim.kind.
      framework: the twin, "torch" or "flax".
      known: the kinds of its registry.
    """
    if kind in known:
        return
    twin = kind.partition(":")[0]
    if twin != framework:
        raise UserError(f"optim.kind={kind} has no twin in {framework}: train it with scripts/train_{twin}.py")
    registry = f"OPTIMIZERS in slm_{framework}/optim/__init__.py"
    raise UserError(f"optim.kind={kind} is not a line of {registry}{nearest(kind, known)}: add it")


def check_comparable(config: Config) -> None:
    """Raises UserError if one twin alone can train a config, so that there is nothing to compare."""
    twin, colon, _ = config.optim.kind.partition(":")
    if colon:
        other = "flax" if twin == "torch" else "torch"
        raise UserError(f"optim.kind={config.optim.kind} has no twin in {other}: nothing to compare")
