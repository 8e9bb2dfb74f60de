"""A run on disk as a model that computes, in either twin, whichever trained it."""

import importlib
import os
from pathlib import Path
from typing import Any

from slm_core.config.fields import with_values
from slm_core.hardware.devices import quiet_jax
from slm_core.model.weights import Weights
from slm_core.protocols import Evaluator
from slm_core.runs.folder import SavedRun
from slm_core.runs.weights import checkpoint_weights, without_adapters


def spare_gpu(framework: str) -> None:
    """Lets JAX start quietly beside the twin that computes. Call it before anything imports jax (grain does)."""
    quiet_jax()
    if framework == "torch":
        # Reading a Flax run's checkpoint starts JAX as well, which must leave the GPU to PyTorch.
        os.environ["JAX_PLATFORMS"] = "cpu"


def weights_of(saved: SavedRun) -> Weights:
    """Returns the parameters of a run to evaluate and decode with, each read when it is asked for.

    Raises:
      UserError: the checkpoint is damaged.
    """

    def open_state(folder: Path) -> Weights:
        return importlib.import_module(f"slm_{saved.framework}.checkpoint").open_state(folder)

    return checkpoint_weights(saved.checkpoint, open_state, saved.config)


def evaluator_of(saved: SavedRun, framework: str, device: str, values: dict[str, Any] | None = None) -> Evaluator:
    """Returns a run's newest weights in a twin, without an optimizer.

    Args:
      framework: the twin; "": that of the run.
      device: as run.device.
      values: {dotted name: value} of other fields to change.

    Raises:
      UserError: the checkpoint is damaged, or the device is not there.
    """
    framework = framework or saved.framework
    spare_gpu(framework)
    twin = importlib.import_module(f"slm_{framework}.evaluator")
    config = with_values(without_adapters(saved.config), {"run.device": device} | (values or {}))
    return twin.Evaluator(config, saved.vocab_size, weights_of(saved))
