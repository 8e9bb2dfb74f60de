"""Measures what a recurrent mixer takes, for the planner: forward and backward on fake tensors, without numbers."""

import contextlib
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from slm_core.config import Config
from slm_core.planner.declarations import MixerMemory
from slm_core.planner.resident import compute_dtype
from slm_torch import params
from slm_torch.layers import recurrence
from slm_torch.layers.documents import numbered
from slm_torch.model import Transformer
from slm_torch.numerics import DTYPES


def mixer_memory(config: Config) -> MixerMemory:
    """Measures the mixer of the first layer.

    Args:
      config: of a model with one layer. Unless run.device is "cpu", the mixer chooses as on a GPU.
    """
    # Slow to import, and needed for mixers alone.
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.distributed._tools.mod_tracker import ModTracker

    dtype = DTYPES[compute_dtype(config.precision)]
    rows, time, width = config.train.micro_batch_size, config.data.seq_len, config.model.d_model
    tracker = MemTracker()

    by_module = mock.patch.object(ModTracker, "register_user_hooks")  # no statistics by module: see slm_torch.memory
    gpu = as_on_a_gpu() if config.run.device != "cpu" else contextlib.nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), gpu, by_module:
        mixer: Any = Transformer(config, 1, dtype).layers[0].mixer
        params.allocate(mixer, DTYPES[config.precision.params], torch.device("cpu"))
        x = torch.empty(rows, time, width, dtype=dtype, requires_grad=True)
        documents = numbered(torch.empty(rows, time, dtype=torch.bool)) if config.data.document_mask else None
        tracker.track_external(mixer, x)
        with tracker:
            before = total(tracker, "current")
            y = mixer(x, 0, None, documents)
            kept = total(tracker, "current") - before - size(y)
            forward = total(tracker, "peak") - before - kept - size(y)
            y.backward(torch.empty_like(y))
            backward = total(tracker, "peak") - before - kept - 2 * size(y)
    return MixerMemory(kept, forward, max(backward, 0))


def size(x: Tensor) -> int:
    """Returns the bytes of a tensor's own storage."""
    return x.untyped_storage().nbytes()


def total(tracker: Any, moment: str) -> int:
    """Returns the bytes that a MemTracker counts at a moment: "current" or "peak"."""
    return sum(device["Total"] for device in tracker.get_tracker_snapshot(moment).values())


def as_on_a_gpu() -> contextlib.AbstractContextManager:
    """Lets a recurrence take as many chunks at once as it does on a GPU, inside the context."""
    return mock.patch.object(recurrence, "MATRICES", recurrence.GPU_MATRICES)
