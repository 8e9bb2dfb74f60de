"""Companion settings: what the paper of a kind sets beside it. The kind is trained in its paper's own setting by these.

A comparison uses them for each variant whose user did not set the field. The trainer says once what is not set.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from slm_core.config import Config
from slm_core.config.fields import field_table, flatten


class Companion(NamedTuple):
    """What a kind asks for.

    Args:
      values: config -> {dotted field: value}.
      source: the paper, and what it says.
    """

    values: Callable[[Config], Mapping[str, Any]]
    source: str


def _embedding_times_root_of_width(config: Config) -> dict[str, Any]:
    return {"model.embed_scale": round(math.sqrt(config.model.d_model), 4)}


COMPANIONS: Mapping[tuple[str, str], Companion] = {
    ("model.norm.kind", "dyt"): Companion(
        _embedding_times_root_of_width,
        "Zhu 2025 (https://arxiv.org/abs/2503.10622) scales the embedding of a language model by sqrt(d_model)",
    ),
    ("model.position.kind", "sinusoidal"): Companion(
        _embedding_times_root_of_width,
        "Vaswani 2017 (https://arxiv.org/abs/1706.03762, 3.4) multiplies the embedding by sqrt(d_model)",
    ),
    ("optim.kind", "lion"): Companion(
        lambda config: {"optim.lr": 2e-4, "optim.weight_decay": 0.5},
        "Chen 2023 (https://arxiv.org/abs/2302.06675, 5) takes a rate 3 to 10 times smaller than AdamW's, and a weight"
        " decay as much larger",
    ),
    ("optim.kind", "adafactor"): Companion(
        lambda config: {"optim.lr": 1e-2},
        "Shazeer 2018 (https://arxiv.org/abs/1804.04235, 8) takes relative steps of at most 1e-2",
    ),
    ("optim.kind", "sgd"): Companion(
        lambda config: {"optim.lr": 0.1},
        "He 2015 (https://arxiv.org/abs/1512.03385, 3.4) starts with a rate of 0.1 beside a momentum of 0.9",
    ),
}  # fmt: skip
"""{(selector, kind): its companion}. A kind that no line names is trained at the defaults."""


def unset_companions(config: Config, explicit: Collection[str] = ()) -> list[tuple[str, dict[str, Any], str]]:
    """Lists what the kinds of a config ask for and the user left at its default.

    Args:
      config: checked.
      explicit: dotted names that the user has set; they stay.

    Returns:
      ("model.norm.kind=dyt", {field: value}, source) of each kind with such a field.
    """
    values, table = flatten(config), field_table()
    found = []
    for (selector, kind), companion in COMPANIONS.items():
        if values[selector] != kind:
            continue
        asked = {
            name: value
            for name, value in companion.values(config).items()
            if name not in explicit and values[name] == table[name].default != value
        }
        if asked:
            found.append((f"{selector}={kind}", asked, companion.source))
    return found
