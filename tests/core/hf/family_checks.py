"""What the tests of all families do: a config.json to ours, and ours to a config.json and back."""

from typing import Any

from slm_core.config import Config
from slm_core.config.validation import validate
from slm_core.hf import FAMILIES
from slm_core.hf.fields import Fields


def checked(family: str, values: dict[str, Any]) -> Config:
    """Returns the valid config of a config.json, all of whose fields are read."""
    fields = Fields(values, family)
    config = FAMILIES[family].read(fields)
    validate(config)
    assert not fields.unread()
    return config


def again(family: str, config: Config) -> Config:
    """Returns what a config is after it was written and read."""
    return FAMILIES[family].read(Fields(FAMILIES[family].write(config), family))
