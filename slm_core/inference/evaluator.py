"""Opens a run on the disk as a model that computes, in either twin, whichever trained it."""

import importlib
from collections.abc import Mapping
from typing import Any

from slm_core.config.fields import with_values
from slm_core.hardware.devices import spare_gpu
from slm_core.protocols import Inspector
from slm_core.runs.saved import SavedRun
from slm_core.runs.weights import run_weights, without_adapters

TOKENS_AT_ONCE = 4096
"""Largest number of tokens that go through a model at once, unless one window is longer."""

LOGITS_AT_ONCE = 2**24
"""Largest number of logits that are in memory at once."""


def fitting(saved: SavedRun, batch_size: int, seq_len: int) -> tuple[int, dict[str, Any]]:
    """Chooses how much goes through the model at once in an evaluation.

    Returns:
      The rows at once, and {dotted name: value} of the fields to change for `open_evaluator`.
    """
    rows = min(batch_size, max(1, TOKENS_AT_ONCE // seq_len))
    chunk = LOGITS_AT_ONCE // saved.vocab_size
    whole = saved.config.memory.loss_chunk or rows * seq_len <= chunk
    return rows, {} if whole else {"memory.loss_chunk": chunk}


def open_evaluator(saved: SavedRun, framework: str, device: str, values: Mapping[str, Any] | None = None) -> Inspector:
    """Loads a run's newest weights into a twin, without an optimizer.

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
    config = with_values(without_adapters(saved.config), {"run.device": device, **(values or {})})
    return twin.Evaluator(config, saved.vocab_size, run_weights(saved))
