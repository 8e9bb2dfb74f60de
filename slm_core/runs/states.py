"""Writes and reads the canonical state of a run: one form, which both twins write and either can continue.

A checkpoint's folder `state/` has these files:

- `state-00001.safetensors`, `state-00002.safetensors`, ...: "params/NAME", "optim/m/NAME", "optim/count",
  "scaler/scale" and so on, as `Engine.export_state` of either twin names them;
- `state.json`: the version of this form, who wrote the state, and how many entries it has (see `describe_state`).

The step and the data's position are beside it, in `loop.json`; every field of the config is in the run's `config.json`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.json_files import Count, Schema, read_json
from slm_core.model.weights import SHARD_BYTES, Lazy, Weights, open_safetensors, save_tensors, shards

SCHEMA = 1
"""Version of the form. A reader refuses a later one."""
FILE = "state.json"
_DELETE = "delete that checkpoint folder"


class Writer(Schema):
    """Who wrote a state."""

    framework: str  # "torch" or "flax"
    device: str  # "cpu" or "cuda"
    params: str  # dtype of the parameters
    compute: str  # dtype of the arithmetic
    optimizer: str
    seed: int


class Description(Writer):
    """The fields of state.json."""

    schema: int  # the version of the form
    files: Count
    entries: Count


def describe_state(config: Config, framework: str) -> Writer:
    """Says who writes a state.

    Args:
      config: the engine's, with everything resolved on its device.
      framework: "torch" or "flax".
    """
    return Writer(
        framework=framework,
        device=config.run.device,
        params=config.precision.params,
        compute=config.precision.compute,
        optimizer=config.optim.kind,
        seed=config.seed,
    )


def write_state(
    folder: Path, entries: Iterable[tuple[str, np.ndarray]], writer: Writer, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes a state into an existing folder, in order. One shard is in memory at a time.

    Args:
      entries: (canonical name, array), as `Engine.state_entries` yields them.
      writer: from `describe_state`.
      shard_bytes: a file is written once it has this many bytes.
    """
    names = []
    for number, shard in enumerate(shards(entries, shard_bytes), 1):
        save_tensors(shard, folder / _file(number))
        names.append(len(shard))
    described = {"schema": SCHEMA, **to_builtins(writer), "files": len(names), "entries": sum(names)}
    (folder / FILE).write_text(json.dumps(described, indent=1) + "\n")


def open_state(folder: Path) -> Weights:
    """Opens a state; an entry is read when it is asked for.

    Raises:
      UserError: the state is missing, damaged, or of a later version.
    """
    described = _description(folder)
    state = open_safetensors([folder / _file(number) for number in range(1, described.files + 1)], _DELETE)
    if len(state) != described.entries:
        raise UserError(
            f"{folder} cannot be read ({len(state)} entries, and {FILE} says {described.entries}): {_DELETE}"
        )
    return state


def read_writer(folder: Path) -> Writer | None:
    """Reads who wrote a state; None: it has no description.

    Raises:
      UserError: the description is damaged, or the state has a later version than this code.
    """
    return _description(folder) if (folder / FILE).exists() else None


def _description(folder: Path) -> Description:
    file = folder / FILE
    version = read_json(file, dict[str, Any], _DELETE).get("schema")
    if isinstance(version, int) and version > SCHEMA:
        raise UserError(f"{file}: a state of version {version}, and this program reads up to {SCHEMA}: update it")
    return read_json(file, Description, _DELETE)


def open_state_for(folder: Path, config: Config) -> Weights:
    """Opens a state for an engine whose arithmetic may be of another type than that of the writer.

    A loss scale belongs to float16. So it starts anew if one of both computes in float16 and the other does not.

    Args:
      config: the engine's, with everything resolved on its device.
    """
    state, writer = open_state(folder), read_writer(folder)
    scales = config.precision.compute == "float16"
    if not writer or (writer.compute == "float16") == scales:
        return state
    scale = np.array(config.precision.loss_scale_init if scales else 1.0, np.float32)
    fresh = {"scaler/scale": lambda: scale, "scaler/good_steps": lambda: np.zeros((), np.int32)}
    return Lazy({name: fresh.get(name) or (lambda name=name: state[name]) for name in state})


def _file(number: int) -> str:
    return f"state-{number:05d}.safetensors"
