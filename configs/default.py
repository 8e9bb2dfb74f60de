"""Bytes, 5 layers, 128 wide: the schema's own defaults, made for a CPU (1,037,696 parameters)."""

from ml_collections import ConfigDict

from slm_core.config import Config
from slm_core.config.conversion import to_config_dict


def get_config() -> ConfigDict:
    return to_config_dict(Config())
