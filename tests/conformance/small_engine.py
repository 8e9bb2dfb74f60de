"""Makes a small model in float64, a batch for it, and its state after some updates."""

import numpy as np
import pytest

from slm_core.config import Attention, Config, Data, Model, Optim, Precision, Run, Train
from slm_core.config.fields import with_values
from slm_core.protocols import IGNORE

VOCAB = 11
CONFIG = Config(
    model=Model(d_model=8, n_layers=1, dropout=0.2, attention=Attention(n_heads=2, kernel="dot_product")),
    data=Data(seq_len=6),
    optim=Optim(clip_norm=0.5),
    train=Train(batch_size=4),
    precision=Precision(params="float64", compute="float64"),
    run=Run(device="cpu"),
)


def batch(ignored: bool = True) -> np.ndarray:
    """Makes tokens [4, 7]. Some targets do not count: a different number in each row, and one row entirely."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (4, 7)).astype(np.int32)
    if ignored:
        tokens[0, 4:] = IGNORE
        tokens[3] = IGNORE
    return tokens


def updated(build, overrides: dict, updates: int = 1) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the state and the metrics after some updates."""
    engine = build(with_values(CONFIG, overrides), VOCAB)
    for step in range(updates):
        metrics = engine.fetch(engine.train_step(batch(), 1e-2, step))
    return {name: np.array(value) for name, value in engine.export_state().items()}, metrics


def check_equal_updates(build, overrides: dict, other: dict) -> None:
    """Fails unless two configs are the same function."""
    (a, x), (b, y) = updated(build, overrides), updated(build, other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-11, atol=1e-14, err_msg=name)
    assert x == pytest.approx(y, rel=1e-12)
