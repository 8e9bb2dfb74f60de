"""Measures the peak memory of one update. This needs no GPU, computes no numbers and allocates no tensors.

The trainer's own update runs on PyTorch's fake tensors, which have a shape and no numbers. PyTorch's MemTracker counts
every storage from when an operation makes it until it is freed. It does not see the memory that a library takes inside
one operation.
"""

import contextlib
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed._tools.mod_tracker import ModTracker

from slm_core.config import Config
from slm_core.planner.resolve import as_predicted
from slm_torch import evaluator, params
from slm_torch.layers import moe
from slm_torch.mixer_memory import as_on_a_gpu, total
from slm_torch.optim.base import named_state
from slm_torch.trainer import Engine


def measured(config: Config, vocab_size: int) -> int:
    """Measures the peak memory of the first update in bytes, with the weights and the optimizer's state.

    A mixture's tokens are spread evenly over its experts. Unless run.device is "cpu", layers choose as they do on a GPU
    before compute capability 8.0.
    """
    tokens = np.zeros((config.train.batch_size, config.data.seq_len + 1), np.uint16)
    tracker = MemTracker()
    with FakeTensorMode(allow_non_fake_inputs=True), without_values(config.run.device != "cpu"):
        engine = Engine(config, vocab_size)
        tracker.track_external(engine.model, *chain(*named_state(engine.optimizer, engine.trained).values()))
        with tracker:
            engine.train_step(tokens, lr=1e-3, step=0)
    return total(tracker, "peak")


@contextlib.contextmanager
def without_values(gpu: bool) -> Iterator[None]:
    """Lets an update run without values, inside the context.

    Parameters have no values. Every number that is read is 1 (a finite norm, a count of updates). All experts get the
    same number of rows. The config stays as `slm_core.planner.predict` counts it, whatever the memory limit.
    """

    def initialise(model: nn.Module, _: int, dtype: torch.dtype, device: torch.device) -> nn.Module:
        return params.allocate(model, dtype, device)

    def rows_by_expert(chosen: Tensor, experts: int) -> Any:
        sizes = [len(part) for part in np.array_split(np.arange(len(chosen)), experts)]
        pair = chosen.argsort(stable=True)
        return moe.Rows(pair, pair.argsort(), sizes)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(params, "initialise", initialise))
        stack.enter_context(mock.patch.object(Tensor, "__float__", lambda _: 1.0))
        stack.enter_context(mock.patch.object(Tensor, "__int__", lambda _: 1))
        stack.enter_context(mock.patch.object(moe, "rows_by_expert", rows_by_expert))
        stack.enter_context(mock.patch.object(evaluator, "resolve_auto", as_predicted))
        if gpu:
            flash, fused = (import_module(f"slm_torch.layers.{name}") for name in ("flash", "fused"))
            stack.enter_context(mock.patch.object(flash, "TILE", flash.GPU_TILE))
            stack.enter_context(as_on_a_gpu())
            stack.enter_context(mock.patch.object(fused, "_shares_keys", lambda *_: False))
        # The total does not need MemTracker's statistics by module, which refuse a second micro-batch, nor those of an
        # optimizer, which refuse a state that belongs to no parameter (its count).
        stack.enter_context(mock.patch.object(ModTracker, "register_user_hooks"))
        stack.enter_context(mock.patch.object(MemTracker, "_track_optimizer_states"))
        yield
