"""Reads the weights of a run to evaluate, decode, export or start another run with.

They are the parameters of a plain model, whatever the run trained.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from slm_core.config import Config, Finetune
from slm_core.errors import UserError
from slm_core.model.weights import Lazy, Weights, read_weights
from slm_core.quantization.formats import ADAPTER, merged
from slm_core.runs.saved import SavedRun
from slm_core.runs.states import open_state
from slm_core.runs.whole import check_whole


def without_adapters(config: Config) -> Config:
    """Returns the config of the plain model whose parameters `evaluated` returns: no adapters, nothing quantised."""
    return replace(config, finetune=Finetune())


def run_weights(saved: SavedRun) -> Weights:
    """Opens the parameters of a run to evaluate and decode with. Each is read when it is asked for.

    Raises:
      UserError: the checkpoint is damaged.
    """
    check_whole(saved.checkpoint, saved.identity)
    return checkpoint_weights(saved.checkpoint, saved.config)


def checkpoint_weights(checkpoint: Path, config: Config) -> Weights:
    """Opens the parameters of a run's checkpoint to evaluate and decode with, whether it was trained or imported.

    Args:
      config: the run's config; the parameters are those of a model of `without_adapters(config)`.

    Raises:
      UserError: the checkpoint is damaged.
    """
    check_whole(checkpoint)
    if (checkpoint / "weights").is_dir():
        weights = read_weights(checkpoint / "weights")
        return merged(weights, config) if config.finetune.kind == "lora" else weights
    return evaluated(open_state(checkpoint / "state"), config)


def adapter_weights(saved: SavedRun) -> Weights:
    """Opens the adapters of a run, apart from its matrices: names that end in lora_a and lora_b.

    Raises:
      UserError: the run has none, or the checkpoint is damaged.
    """
    if saved.config.finetune.kind != "lora":
        raise UserError(f"{saved.folder} has no adapters: its finetune.kind is {saved.config.finetune.kind}")
    check_whole(saved.checkpoint, saved.identity)
    stored = saved.checkpoint / "weights"
    weights = (
        read_weights(stored) if stored.is_dir() else _averaged(open_state(saved.checkpoint / "state"), saved.config)
    )
    return Lazy({n: partial(weights.__getitem__, n) for n in weights if n.rpartition(".")[2] in ADAPTER})


def evaluated(state: Weights, config: Config) -> Weights:
    """Returns the parameters to evaluate and decode with, from an engine's exported state.

    They are the parameters that it trains; with schedule_free their averages (see its optimizer):
    x = (y - (1 - b1) z) / b1. Adapters are merged into the matrices beside them. Quantised matrices are dequantised.
    """
    weights = _averaged(state, config)
    return merged(weights, config) if config.finetune.kind == "lora" else weights


def _averaged(state: Weights, config: Config) -> Weights:
    """Returns the parameters of a state by name, adapters apart; with schedule_free their averages."""

    def read(name: str) -> np.ndarray:
        y = state[f"params/{name}"]
        # A mixture's balance and frozen parameters have no z.
        if config.optim.kind != "schedule_free" or f"optim/z/{name}" not in state:
            return y
        b1 = config.optim.betas[0]
        return (y - (1 - b1) * state[f"optim/z/{name}"]) / b1

    names = [entry.removeprefix("params/") for entry in state if entry.startswith("params/")]
    return Lazy({name: partial(read, name) for name in names})
