"""Imports and exports Hugging Face checkpoints: folders of config.json and safetensors. No framework is needed.

A family is one file in `families`. It says how its config fields and tensors correspond to ours.
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from slm_core.errors import UserError, nearest
from slm_core.hf import families
from slm_core.hf.family import Family

FIRST = (
    "llama", "mistral", "qwen3", "smollm3", "olmo2", "gemma2", "gemma3_text", "mixtral", "qwen3_moe", "deepseek_v3",
    "gpt_oss", "gpt2", "gpt_neox", "bloom", "mpt",
)  # fmt: skip
"""Families that other programs know best, in this order. The others follow by their names."""


def _found() -> Iterator[Family]:
    """Yields the families that the files in `families` define."""
    for file in pkgutil.iter_modules(families.__path__):
        module = import_module(f"{families.__name__}.{file.name}")
        yield from (each for each in vars(module).values() if isinstance(each, Family))


def _rank(family: Family) -> tuple[int, str]:
    return (FIRST.index(family.model_type) if family.model_type in FIRST else len(FIRST)), family.model_type


FAMILIES = {family.model_type: family for family in sorted(_found(), key=_rank)}
"""{model_type: Family}. An export takes the first family that can express the config."""


def family_of(model_type: str) -> Family:
    """Looks up the family of a model_type. Raises UserError if there is none."""
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(
            f"model_type={model_type!r} is not a family here{nearest(model_type, FAMILIES)}: use one of {known}"
        )
    return FAMILIES[model_type]
