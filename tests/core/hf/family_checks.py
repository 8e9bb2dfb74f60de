"""Reads a family's config.json, and writes a config and reads it again."""

from typing import Any

from slm_core.config import Config
from slm_core.config.validation import validate
from slm_core.hf import FAMILIES


def checked(family: str, values: dict[str, Any]) -> Config:
    """Returns the valid config of a config.json, all of whose fields are known."""
    config = FAMILIES[family].config(values)
    validate(config)
    return config


def again(family: str, config: Config) -> Config:
    """Writes a config as a config.json and reads it again."""
    return FAMILIES[family].config(FAMILIES[family].write(config))
