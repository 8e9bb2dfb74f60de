"""The weights of a run to evaluate, decode, export or start another run with: without adapters, and floating."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from slm_core.config import Config, Finetune
from slm_core.model.weights import Lazy, Weights, read_weights
from slm_core.quantization.formats import merged


def without_adapters(config: Config) -> Config:
    """Returns the config of the model that `evaluated` returns the weights of: no adapters, no quantised matrix."""
    return replace(config, finetune=Finetune())


def checkpoint_weights(checkpoint: Path, open_state: Callable[[Path], Weights], config: Config) -> Weights:
    """Returns the parameters to evaluate and decode with, of a checkpoint of a run, trained or imported.

    Args:
      open_state: of the `checkpoint` module of the twin that trained it; called for a trained one.
      config: of the run; the parameters are those of a model of `without_adapters(config)`.

    Raises:
      UserError: the checkpoint is damaged.
    """
    if (checkpoint / "weights").is_dir():
        return read_weights(checkpoint / "weights")
    return evaluated(open_state(checkpoint / "state"), config)


def evaluated(state: Weights, config: Config) -> Weights:
    """Returns the parameters to evaluate and decode with, of an engine's exported state.

    They are those that it trains, or with schedule_free their averages (see its optimizer): x = (y - (1 - b1) z) / b1.
    Adapters are merged into their matrices, and quantised matrices are dequantised.
    """

    def read(name: str) -> np.ndarray:
        y = state[f"params/{name}"]
        # A mixture's balance and frozen parameters have no z.
        if config.optim.kind != "schedule_free" or f"optim/z/{name}" not in state:
            return y
        b1 = config.optim.betas[0]
        return (y - (1 - b1) * state[f"optim/z/{name}"]) / b1

    names = [entry.removeprefix("params/") for entry in state if entry.startswith("params/")]
    weights = Lazy({name: lambda name=name: read(name) for name in names})
    return merged(weights, config) if config.finetune.kind == "lora" else weights
