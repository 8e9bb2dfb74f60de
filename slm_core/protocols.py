"""What the loop asks of a twin: the numerics alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from slm_core.config import Config

IGNORE = -1
"""A token id of this value, where it stands as a target, counts neither in the loss nor in the number of tokens."""


class Decoder(Protocol):
    """One sequence being decoded with a KV cache."""

    context: int  # tokens that the cache holds: prompt and continuation together

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Forgets everything, reads 1 to `context` tokens, returns the logits of the next one, float [vocab]."""

    def step(self, token: int) -> np.ndarray:
        """Appends one token, returns the logits of the next one, float [vocab]."""


class Evaluator(Protocol):
    """A model with given weights on a device, without an optimizer. Made by a twin's `Evaluator(config, vocab_size,
    weights)`."""

    framework: str  # "torch" or "flax"
    config: "Config"  # with what was open in it resolved on the device
    choices: dict[str, str]  # {field: value and why} of each of those

    def facts(self) -> dict[str, str]:
        """Lines for the start of a run: parameters, device, each choice, memory."""

    def eval_step(self, tokens: np.ndarray) -> tuple[float, int]:
        """Returns the sum of the token losses in nats and the number of tokens, without dropout.

        Args:
          tokens: int32 [rows, length + 1]; column t + 1 is the target of column t.
        """

    def decoder(self) -> Decoder:
        """Returns a decoder over the current parameters, with room for `data.seq_len` tokens."""

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory of the device so far (of the process, on a CPU), in bytes."""


class Engine(Evaluator, Protocol):
    """One twin, built: model, optimizer and loss scaler on a device. Made by a twin's `build(config,
    vocab_size, weights)`."""

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> Any:
        """Does one update and returns its metrics still on the device, without waiting for them.

        Args:
          tokens: int32 [batch_size, seq_len + 1], as for `eval_step`.
          lr: the learning rate of this update.
          step: updates completed before this one; it keys dropout.
        """

    def fetch(self, metrics: Any) -> dict[str, float]:
        """Waits for a `train_step`'s metrics: loss, grad_norm, loss_scale, skipped (1.0: not applied, else 0.0)."""

    def save(self, folder: Path) -> None:
        """Writes parameters, optimizer and scaler state into an existing empty folder, in the twin's native format."""

    def restore(self, folder: Path) -> None:
        """Reads what `save` wrote. Raises UserError when the folder does not fit the model."""

    def export_state(self) -> dict[str, np.ndarray]:
        """Returns everything by canonical name: "params/NAME", "optim/m/NAME", "optim/v/NAME", "optim/count",
        "scaler/scale", "scaler/good_steps". Equal in names and shapes across the twins."""

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes what either twin's `export_state` returned."""
