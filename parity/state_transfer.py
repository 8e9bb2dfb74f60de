"""Transfers the state of one twin to the other, and makes states whose values hide no fault."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slm_core.model.initialization import Spec, initial_value
from slm_core.protocols import Engine

State = dict[str, np.ndarray]
COUNTERS = {"count": 3, "weight_sum": 0.03}
"""{single number of an optimizer's state: its value after three updates at the learning rate of the update check}."""
SQUARES = ("v/", "v_scale/", "row/", "col/")
"""Parts of an optimizer's state that hold squared gradients."""
CODES, SCALES = (".codes", ".scale_codes", ".scale_offset"), (".scale", ".scale_step")
"""Parts of a matrix in few bits. No initial code is zero, but its weight is small: so perturbing raises the scales."""


def snapshot(engine: Engine) -> State:
    """Returns a copy of `engine.export_state()` that later updates leave alone."""
    return {name: np.array(value) for name, value in engine.export_state().items()}


def transfer(source: Engine, target: Engine) -> None:
    """Gives `target` the parameters, optimizer and loss scaler of `source`, by the files of a checkpoint.

    Each may be of either twin.

    Raises:
      UserError: the engines were built from configs with other shapes.
    """
    with TemporaryDirectory() as folder:
        source.save(Path(folder))
        target.restore(Path(folder))


def perturbed(state: Mapping[str, np.ndarray], seed: int) -> State:
    """Returns a state of the same names, shapes and dtypes that is non-zero everywhere.

    Initial zeros and ones hide faults: a bias that is never added, a norm weight that is never multiplied. Matrices
    become normal with a standard deviation of 1 / sqrt(their smaller side), which keeps activations and logits near 1.
    Vectors vary by 0.2 about 0.7. An optimizer's state becomes that of three updates with gradients of about 0.01.
    """
    return {name: _perturbed(name, value, seed) for name, value in state.items()}


def _perturbed(name: str, value: np.ndarray, seed: int) -> np.ndarray:
    part, _, rest = name.partition("/")
    if part == "scaler":
        return np.array(value)
    if rest in COUNTERS:
        return np.full_like(value, COUNTERS[rest])
    if rest.startswith("z/"):  # parameters that run ahead of those in training
        ahead = _perturbed(f"params/{rest.removeprefix('z/')}", value, seed)
        return (ahead + 1e-2 * initial_value(name, value.shape, Spec("matrix", std=1.0), seed)).astype(value.dtype)
    if rest.endswith(CODES):
        return np.array(value)
    noise = initial_value(name, value.shape, Spec("matrix", std=1.0), seed)
    if rest.endswith(SCALES):
        return (value * (8 + 0.8 * noise)).astype(value.dtype)
    if part == "optim" and value.dtype == np.uint8:  # codes; squares stay away from zero
        moved = np.clip(np.round(128 + 50 * noise), 64, 255)
    elif part == "optim" and rest.startswith("m_scale/"):
        moved = 1e-2 * (0.5 + np.abs(noise))
    elif part == "optim":
        # Squared gradients stay away from zero: near it, an update magnifies the rounding of its gradient.
        moved = 1e-4 * (0.5 + np.abs(noise)) if rest.startswith(SQUARES) else 1e-2 * noise
    elif rest.endswith(".lora_a"):  # the sum is over its larger side
        moved = noise / value.shape[0] ** 0.5
    elif value.ndim >= 2:
        moved = noise / min(value.shape[-2:]) ** 0.5
    else:
        moved = 0.7 + 0.2 * noise
    return moved.astype(value.dtype)
