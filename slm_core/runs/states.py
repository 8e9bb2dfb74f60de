"""Writes and reads the canonical state of a run: one form, which both twins write and either can continue.

A checkpoint's folder `state/` has these files:

- `state-00001.safetensors`, `state-00002.safetensors`, ...: "params/NAME", "optim/m/NAME", "optim/count",
  "scaler/scale" and so on, as `Engine.export_state` of either twin names them;
- `state.json`: the version of this form, who wrote the state, and how many entries it has (see `describe_state`).

The step and the data's position are beside it, in `loop.json`; every field of the config is in the run's `config.json`.
Checkpoints of earlier versions are read as well: one file `state.safetensors` of the PyTorch twin, and the Orbax tree
of the Flax twin.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.model.weights import SHARD_BYTES, Lazy, Weights, open_safetensors, shards

SCHEMA = 1
"""Version of the form. A reader refuses a later one."""
FILE, FIRST_FORM, ORBAX = "state.json", "state.safetensors", "state"
_DELETE = "delete that checkpoint folder"


def describe_state(config: Config, framework: str) -> dict[str, Any]:
    """Says who writes a state.

    Args:
      config: the engine's, with everything resolved on its device.
      framework: "torch" or "flax".
    """
    precision = config.precision
    return {
        "framework": framework,
        "device": config.run.device,
        "params": precision.params,
        "compute": precision.compute,
        "optimizer": config.optim.kind,
        "seed": config.seed,
    }


def write_state(
    folder: Path, entries: Iterable[tuple[str, np.ndarray]], writer: dict[str, Any], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes a state into an existing folder, in order. One shard is in memory at a time.

    Args:
      entries: (canonical name, array), as `Engine.state_entries` yields them.
      writer: from `describe_state`.
      shard_bytes: a file is written once it has this many bytes.
    """
    names = []
    for number, shard in enumerate(shards(entries, shard_bytes), 1):
        save_file(shard, folder / _file(number))
        names.append(len(shard))
    described = {"schema": SCHEMA, **writer, "files": len(names), "entries": sum(names)}
    (folder / FILE).write_text(json.dumps(described, indent=1) + "\n")


def open_state(folder: Path) -> Weights:
    """Opens a state; an entry is read when it is asked for.

    Raises:
      UserError: the state is missing, damaged, or of a later version.
    """
    if (folder / ORBAX / "_METADATA").is_file() and not (folder / FILE).exists():
        from slm_core.runs.orbax_states import open_orbax

        return open_orbax(folder / ORBAX)
    if (folder / FIRST_FORM).is_file():
        return open_safetensors([folder / FIRST_FORM], _DELETE)
    if not (described := read_writer(folder)):
        raise UserError(f"checkpoint {folder} cannot be read ({FILE} is missing): {_DELETE}")
    state = open_safetensors([folder / _file(number) for number in range(1, described["files"] + 1)], _DELETE)
    if len(state) != described["entries"]:
        raise UserError(
            f"{folder} cannot be read ({len(state)} entries, and {FILE} says {described['entries']}): {_DELETE}"
        )
    return state


def read_writer(folder: Path) -> dict[str, Any]:
    """Reads who wrote a state, see `describe_state`; and the numbers of its "files" and "entries".

    A checkpoint of an earlier version does not say it: then the result is {}.

    Raises:
      UserError: the description is damaged, or the state has a later version than this code.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        schema, kinds = described["schema"], {name: type(described[name]) for name in _KINDS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error!r}): {_DELETE}") from None
    if kinds != _KINDS:
        wrong = next(name for name, kind in _KINDS.items() if kinds[name] is not kind)
        raise UserError(
            f"{file} cannot be read ({wrong}={described[wrong]!r} is not {_KINDS[wrong].__name__}): {_DELETE}"
        )
    if schema > SCHEMA:
        raise UserError(f"{file}: a state of version {schema}, and this program reads up to {SCHEMA}: update it")
    return described


_KINDS = {"schema": int, "framework": str, "device": str, "params": str, "compute": str, "optimizer": str, "seed": int,
          "files": int, "entries": int}  # fmt: skip


def open_state_for(folder: Path, config: Config) -> Weights:
    """Opens a state for an engine whose arithmetic may be of another type than that of the writer.

    A loss scale belongs to float16. So it starts anew if one of both computes in float16 and the other does not.

    Args:
      config: the engine's, with everything resolved on its device.
    """
    state, writer = open_state(folder), read_writer(folder)
    scales = config.precision.compute == "float16"
    if not writer or (writer["compute"] == "float16") == scales:
        return state
    scale = np.array(config.precision.loss_scale_init if scales else 1.0, np.float32)
    fresh = {"scaler/scale": lambda: scale, "scaler/good_steps": lambda: np.zeros((), np.int32)}
    return Lazy({name: fresh.get(name) or (lambda name=name: state[name]) for name in state})


def copy_state(source: Path, folder: Path, config: Config, framework: str) -> None:
    """Copies a state into an existing folder. A tree of Orbax becomes the canonical form, entry by entry.

    Args:
      config, framework: who wrote the state; asked if the state itself does not say so.
    """
    if (source / ORBAX / "_METADATA").is_file() and not (source / FILE).exists():
        write_state(folder, open_state(source).items(), describe_state(config, framework))
    else:
        shutil.copytree(source, folder, dirs_exist_ok=True)


def _file(number: int) -> str:
    return f"state-{number:05d}.safetensors"
