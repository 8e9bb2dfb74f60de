"""Exports the parameters of a run as an Orbax checkpoint, the format of most JAX programs."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from slm_core.model.weights import Weights

FOLDER = "params"


def write_orbax(folder: Path, weights: Weights) -> None:
    """Writes `folder`/params, which `ocp.StandardCheckpointer().restore(path)` reads (https://orbax.readthedocs.io).

    Its tree follows the canonical names: "layers.0.mlp.up_proj.weight" is tree["layers"]["0"]["mlp"]["up_proj"]
    ["weight"]. All parameters are in memory at once.

    Args:
      folder: an existing folder.
      weights: by canonical name.
    """
    tree: dict[str, Any] = {}
    for name, array in weights.items():
        *inner, leaf = name.split(".")
        place = tree
        for word in inner:
            place = place.setdefault(word, {})
        place[leaf] = array
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / FOLDER, tree)
