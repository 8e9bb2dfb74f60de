"""Which settings whole models of Hugging Face transformers check: those of the cases of docs/oracle.md."""

import operator
from typing import Any

import transformers

from parity.fields import selectors
from parity.oracle.cases import CASES
from slm_core.config.fields import field_table
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.hf.importing import config_of

SECTIONS = ("model", "optim", "finetune")
"""Of the schema: those whose kinds are formulas."""


def kinds() -> set[str]:
    """Lists every kind of these sections, as "norm.kind=rmsnorm"; `model.` is left out."""
    return {
        f"{name.removeprefix('model.')}={kind}"
        for name, info in field_table().items()
        if name.partition(".")[0] in SECTIONS
        for kind in info.option.choices
    }


def kinds_of_families() -> dict[str, list[str]]:
    """Returns {kind: the families whose models have a layer that reads it}, by the configs that we read of them."""
    found: dict[str, list[str]] = {}
    for case in CASES:
        transformers.logging.set_verbosity_error()
        values = transformers.CONFIG_MAPPING[case.family](**case.values).to_dict()
        for layer in layer_specs(config_of(values).config.model):
            for kind in sorted(kinds()):
                name, _, value = kind.partition("=")
                if name.partition(".")[0] not in SECTIONS and _reads(layer, name) and _value(layer, name) == value:
                    found.setdefault(kind, []).append(case.family)
    return {kind: list(dict.fromkeys(families)) for kind, families in sorted(found.items())}


def _reads(layer: LayerSpec, name: str) -> bool:
    """Tells whether the layer's other kinds let it read a field."""
    rules = selectors(f"model.{name}").items()
    return all(_value(layer, other.removeprefix("model.")) in values for other, values in rules)


def _value(layer: LayerSpec, name: str) -> Any:
    return operator.attrgetter(name)(layer)
