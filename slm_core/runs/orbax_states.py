"""Reads the Orbax tree that the Flax twin wrote in earlier versions, without Orbax and so without JAX.

Such a folder is a flat tree of arrays. `_METADATA` lists their names, and TensorStore reads each array: in Zarr's form,
inside one database of the folder (OCDBT).
"""

import json
from pathlib import Path

import numpy as np

from slm_core.errors import UserError
from slm_core.model.weights import Lazy, Weights


def open_orbax(folder: Path) -> Weights:
    """Opens the entries of a flat Orbax tree by name; each is read when it is asked for.

    Raises:
      UserError: the folder is damaged.
    """
    try:
        metadata = json.loads((folder / "_METADATA").read_text(encoding="utf-8"))
        driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        names = [entry["key_metadata"][0]["key"] for entry in metadata["tree_metadata"].values()]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _unreadable(folder, f"its metadata are damaged: {error!r}") from None
    return Lazy({name: lambda name=name: _read(folder, driver, name) for name in names})


def _read(folder: Path, driver: str, name: str) -> np.ndarray:
    import tensorstore

    base = {"driver": "ocdbt", "base": f"file://{folder.absolute()}/", "path": f"{name}/"}
    try:
        return np.asarray(tensorstore.open({"driver": driver, "kvstore": base}, open=True).result().read().result())
    except (ValueError, OSError) as error:
        raise _unreadable(folder, " ".join(str(error).split())[:120]) from None


def _unreadable(folder: Path, reason: str) -> UserError:
    return UserError(f"checkpoint {folder} cannot be read ({reason}): delete that checkpoint folder")
