"""Learning rates by the schedulers of PyTorch, optax and Hugging Face transformers."""

import numpy as np
import optax
import torch
from transformers import get_wsd_schedule

from slm_core.config import Optim
from slm_core.training.schedules import learning_rates
from tests.outside.formula import Formula

STEPS, WARMUP, LR, FLOOR = 50, 7, 2e-3, 0.1
LAST = STEPS - 1 - WARMUP
"""The updates from the peak to the last one."""


def _ours(schedule: str, **fields) -> np.ndarray:
    optim = Optim(schedule=schedule, lr=LR, warmup_steps=WARMUP, min_lr_ratio=FLOOR, **fields)
    return learning_rates(optim, STEPS)


def _torch(make) -> np.ndarray:
    """Warms up by LinearLR; `make` makes the scheduler of the rest."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (WARMUP + 1), total_iters=WARMUP)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, make(optimizer)], [WARMUP])
    return _rates(optimizer, scheduler, STEPS)


def _wsd() -> np.ndarray:
    """It warms up from 0, so it gives the rates from the peak on."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    scheduler = get_wsd_schedule(
        optimizer, 0, 10, num_stable_steps=LAST - 10, decay_type="linear", min_lr_ratio=FLOOR
    )  # fmt: skip
    return _rates(optimizer, scheduler, LAST + 1)


def _rates(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> np.ndarray:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def _formula(schedule: str, source: str, theirs, start: int = 0, **fields) -> Formula:
    return Formula(
        f"optim.schedule={schedule}", source, lambda _: _ours(schedule, **fields)[start:], theirs, shared=True
    )


_SCHEDULERS = torch.optim.lr_scheduler
FORMULAS = [
    _formula(
        "constant",
        "torch, LinearLR and ConstantLR",
        lambda: _torch(lambda o: _SCHEDULERS.ConstantLR(o, 1.0, total_iters=0)),
    ),
    _formula(
        "linear",
        "torch, LinearLR",
        lambda: _torch(lambda o: _SCHEDULERS.LinearLR(o, 1.0, FLOOR, total_iters=LAST)),
    ),
    _formula(
        "cosine",
        "torch, CosineAnnealingLR",
        lambda: _torch(lambda o: _SCHEDULERS.CosineAnnealingLR(o, LAST, eta_min=FLOOR * LR)),
    ),
    Formula(
        "optim.schedule=cosine, another one",
        "optax.cosine_decay_schedule",
        lambda _: _ours("cosine")[WARMUP:],
        lambda: [optax.cosine_decay_schedule(LR, LAST, FLOOR)(k) for k in range(LAST + 1)],
        shared=True,
        tolerance=1e-6,
        why="it computes in float32",
    ),
    _formula("wsd", "transformers, get_wsd_schedule", _wsd, start=WARMUP, decay_fraction=0.2),
]
