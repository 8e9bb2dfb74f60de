"""Synthetic tasks: a small model of 2 layers for each; docs/tasks.md says which changes of it must fail."""

from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from slm_core.config import Attention, Config, Data, Model, Optim, Run, Train
from slm_core.config.conversion import to_config_dict
from slm_core.config.presets import choose


def copying() -> Config:
    """copy 8 symbols after a delay; one layer without positions cannot (107,456 parameters)"""
    return _task("copying", seq_len=24, symbols=8, items=8)


def selective_copying() -> Config:
    """copy 6 symbols from among blanks; attention.window=4 cannot (107,456 parameters)"""
    return _task("selective_copying", seq_len=24, symbols=8, items=6)


def induction() -> Config:
    """say what followed a token before; n_layers=1 cannot (107,904 parameters)"""
    return _task("induction", seq_len=24, symbols=16, items=4, model=SHARP)


def repetition() -> Config:
    """say again what was said before; forms induction heads, as scripts/inspect_run.py shows (108,928 parameters)"""
    pattern = "attention.window=8 | position.kind=none"  # as LOOKING_BACK, and further
    model = replace(SHARP, attention=Attention(n_heads=4), pattern=pattern)
    kept = dict(checkpoint_every=20, keep_checkpoints=100, log_details_every=20)
    config = _task("repetition", seq_len=47, symbols=32, items=8, model=model, steps=500, **kept)
    return replace(config, run=Run(threads=1))  # a model so small gains nothing from more, and loses beside other work


def mqar() -> Config:
    """recall the values of 4 keys; attention.window=2 cannot (108,928 parameters)"""
    return _task("mqar", seq_len=24, symbols=32, items=4)


def in_context_recall() -> Config:
    """recall the value of a key from pairs; attention.window=1 cannot (107,904 parameters)"""
    return _task("in_context_recall", seq_len=31, symbols=16, items=4, model=LOOKING_BACK)


def noisy_recall() -> Config:
    """recall the value of a key from pairs and noise; attention.window=1 cannot (108,928 parameters)"""
    return _task("noisy_recall", seq_len=31, symbols=16, items=4, model=LOOKING_BACK)


def compression() -> Config:
    """say the symbol of any place of 8; attention.window=2 cannot (108,480 parameters)"""
    return _task("compression", seq_len=24, symbols=16, items=8, model=SHARP)


def memorization() -> Config:
    """know 64 facts by heart; attention.window=1 can, because only the weights count (115,072 parameters)"""
    return _task("memorization", seq_len=32, symbols=128)


def modular_addition() -> Config:
    """add modulo 31 from 60% of the table; attention.window=2 cannot (108,992 parameters)"""
    return _task("modular_addition", seq_len=4, symbols=31, train_fraction=0.6)


def parity() -> Config:
    """the parity of 6 bits; attention.window=3 cannot (107,072 parameters)"""
    return _task("parity", seq_len=7, items=6, model=SHARP, lr=1e-3)


def dyck() -> Config:
    """the kind of a closing bracket up to depth 5; attention.window=2 cannot (107,392 parameters)"""
    return _task("dyck", seq_len=32, symbols=4, items=5)


def grammar() -> Config:
    """agreement with a far subject; attention.window=2 cannot (107,904 parameters)"""
    return _task("grammar", seq_len=32, symbols=4, items=2)


SMALL = Model(d_model=64, n_layers=2, attention=Attention(n_heads=2))
SHARP = replace(SMALL, init_std=0.125)
"""Initial values of 1 / sqrt(d_model). With 0.02 all scores are nearly equal, and nothing forms for long."""
LOOKING_BACK = replace(SHARP, pattern="attention.window=4 | position.kind=none")
"""The first layer sees where tokens stand, and only near ones; the second sees what they are."""
COURSE = Train(
    steps=1000, batch_size=32, eval_every=100, eval_batches=32, checkpoint_every=0, log_every=20, sample_every=0
)


def _task(
    task: str, seq_len: int, symbols: int = 64, items: int = 8, train_fraction: float = 0.5, model: Model = SMALL,
    lr: float = 3e-3, **course: Any,
) -> Config:  # fmt: skip
    return Config(
        model=model,
        data=Data(
            source="task", task=task, seq_len=seq_len, task_symbols=symbols, task_items=items,
            task_train_fraction=train_fraction,
        ),
        optim=Optim(lr=lr, warmup_steps=50),
        train=replace(COURSE, **course),
    )  # fmt: skip


VARIANTS = {
    "copying": copying, "selective_copying": selective_copying, "induction": induction, "repetition": repetition,
    "mqar": mqar, "in_context_recall": in_context_recall, "noisy_recall": noisy_recall, "compression": compression,
    "memorization": memorization, "modular_addition": modular_addition, "parity": parity, "dyck": dyck,
    "grammar": grammar,
}  # fmt: skip

LIMITED: dict[str, dict[str, Any]] = {
    "copying": {"model.position.kind": "none", "model.n_layers": 1},
    "selective_copying": {"model.attention.window": 4},
    "induction": {"model.n_layers": 1},
    "repetition": {"model.pattern": "attention.window=2"},
    "mqar": {"model.attention.window": 2},
    "in_context_recall": {"model.pattern": "attention.window=1"},
    "noisy_recall": {"model.pattern": "attention.window=1"},
    "compression": {"model.attention.window": 2},
    "memorization": {"model.attention.window": 1},
    "modular_addition": {"model.attention.window": 2},
    "parity": {"model.attention.window": 3},
    "dyck": {"model.attention.window": 2},
    "grammar": {"model.attention.window": 2},
}
"""A change of each preset with which the task cannot be solved; with that of memorization it can."""


def get_config(variant: str = "mqar") -> ConfigDict:
    return to_config_dict(choose(VARIANTS, variant))
