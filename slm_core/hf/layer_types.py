"""Reads and writes the two types of layers that Hugging Face names: with a sliding window, and without."""

from collections.abc import Callable, Sequence
from typing import Any

from slm_core.config import Config
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.fields import Fields

FULL, SLIDING = "full_attention", "sliding_attention"


def read_layer_types(fields: Fields, sliding: Callable[[int], bool]) -> list[str]:
    """Returns the type of each layer.

    Args:
      sliding: says of a layer's index, counted from 0, whether the class gives it a window if `layer_types` is absent.

    Raises:
      UserError: the schema lacks a type, or their number is not that of the layers.
    """
    count = fields.get("num_hidden_layers")
    types = fields.get("layer_types")
    if types is None:
        return [SLIDING if sliding(i) else FULL for i in range(count)]
    for other in types:
        if other not in (FULL, SLIDING):
            raise UserError(f"config.json: {other!r} in layer_types cannot be expressed: only {FULL!r} or {SLIDING!r}")
    if len(types) != count:
        raise UserError(f"config.json: layer_types names {len(types)} of num_hidden_layers={count}: restore the file")
    return types


def read_window(fields: Fields) -> int | None:
    """Returns the window of a class that has use_sliding_window; None if that is off."""
    window = fields.get("sliding_window")
    return window if fields.get("use_sliding_window") else None


def read_windows(types: Sequence[str], window: int | None) -> list[dict[str, Any]]:
    """Returns the fields inside `model.` of each layer. Raises UserError if a layer's window is not set."""
    if SLIDING in types and window is None:
        raise UserError(
            f"config.json: sliding_window={window}, or use_sliding_window=False, but layer_types has {SLIDING!r}:"
            " restore the file"
        )
    return [{"attention.window": window} if kind == SLIDING else {} for kind in types]


def write_layer_types(config: Config) -> dict[str, Any]:
    """Returns `layer_types` and `sliding_window`, which is null if no layer has one."""
    windows = [layer.attention.window for layer in layer_specs(config.model)]
    return {
        "layer_types": [SLIDING if window else FULL for window in windows],
        "sliding_window": next(filter(None, windows), None),
    }
