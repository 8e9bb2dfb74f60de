"""Fingerprints by which a checkpoint and its run know each other."""

import dataclasses
from typing import NamedTuple

from slm_core.config import Config
from slm_core.config.conversion import from_config_dict
from slm_core.config.fields import flatten
from slm_core.data.hashing import json_hash
from slm_core.runs.naming import MAY_DIFFER


class Identity(NamedTuple):
    """What all checkpoints of a run have in common. It is in config.json and in the manifest of each checkpoint."""

    config: str  # of `config_fingerprint`, when the run was begun
    data: str  # fingerprint of the prepared data; `description.IMPORTED`


def config_fingerprint(config: Config, framework: str) -> str:
    """Hashes the twin and the fields of a config that a resumed run keeps, 16 hexadecimal digits.

    It is computed once, when a run is begun, and compared as a text: a field that a later version adds changes nothing.
    """
    values = flatten(from_config_dict(dataclasses.asdict(config)))
    kept = {name: value for name, value in values.items() if not name.startswith(MAY_DIFFER)}
    return json_hash(framework, kept)[:16]
