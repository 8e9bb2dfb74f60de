"""The coordinate check of muP (Yang et al. 2022, https://arxiv.org/abs/2203.03466, appendix D.1).

Under muP an update moves activations by as much at any width. The learning rate that suits one width then suits all.
"""

import dataclasses

import numpy as np
import pytest
import torch

from slm_core.config import Attention, Config, Data, Model, Optim, Run, Train
from slm_core.config.validation import validate
from slm_core.model.mup import POWERS
from slm_torch.trainer import Engine, build
from tests.gates import require

WIDTHS = (64, 128, 256)
UPDATES = 4
KINDS = {
    "adamw": Optim(lr=1e-2),
    "adamw8bit": Optim(kind="adamw8bit", lr=1e-2),
    "lion": Optim(kind="lion", lr=3e-3),
    "schedule_free": Optim(kind="schedule_free", lr=1e-2),
    "adafactor": Optim(kind="adafactor", lr=1e-1),
    "sgd": Optim(kind="sgd", lr=1.0, clip_norm=0.0),
    "muon": Optim(kind="muon", lr=1e-2),
    "muon, spectral": Optim(kind="muon", lr=1e-2, muon_scale="spectral"),
}


def test_every_power_is_checked():
    require({kind: "a learning rate in KINDS of tests/torch/test_mup.py" for kind in POWERS.keys() - KINDS.keys()})
    assert KINDS.keys() <= POWERS.keys()


TOKENS = np.random.default_rng(0).integers(0, 61, (4, 17)).astype(np.int32)


def built(width: int, base: int, optim: Optim, head_bias: bool = False) -> Engine:
    """Builds the engine of a model, which then has its initial weights."""
    attention = Attention(n_heads=width // 32, head_dim=32)
    config = Config(
        model=Model(d_model=width, n_layers=2, head_bias=head_bias, mup_base_width=base, attention=attention),
        data=Data(seq_len=16),
        optim=dataclasses.replace(optim, weight_decay=0.0, warmup_steps=0),
        train=Train(steps=10, batch_size=4),
        run=Run(device="cpu"),
    )
    validate(config)
    return build(config, 61)


def moved(width: int, base: int, optim: Optim) -> np.ndarray:
    """Returns the root mean square change of the hidden state and of the logits that a few updates make."""
    engine = built(width, base, optim)

    def activations() -> list[torch.Tensor]:
        with torch.no_grad():
            hidden = engine.model(torch.from_numpy(TOKENS[:, :-1]).long())[0]
            return [hidden, engine.model.logits(hidden)]

    before = activations()
    for step in range(UPDATES):
        engine.train_step(TOKENS, optim.lr, step)
    return np.array([float((b - a).square().mean().sqrt()) for a, b in zip(before, activations(), strict=True)])


def growth(optim: Optim, mup: bool) -> np.ndarray:
    """Measures how much more the widest model moves than the narrowest, per doubling of the width."""
    changes = np.array([moved(width, WIDTHS[0] if mup else 0, optim) for width in WIDTHS])
    return (changes[-1] / changes[0]) ** (1 / np.log2(WIDTHS[-1] / WIDTHS[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_updates_move_activations_alike_at_every_width(kind):
    growths, without = growth(KINDS[kind], mup=True), growth(KINDS[kind], mup=False)
    assert (growths > 0.8).all() and (growths < 1.25).all()
    assert without.max() > 1.3  # what the check is there to see


def bias_moved(width: int, optim: Optim) -> float:
    """Returns the root mean square of a bias of the logits, which starts at 0, after one update."""
    engine = built(width, WIDTHS[0], optim, head_bias=True)
    engine.train_step(TOKENS, optim.lr, 0)
    return float(engine.params["head_bias"].detach().square().mean().sqrt())


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_an_update_moves_a_bias_of_the_logits_alike_at_every_width(kind):
    """As many logits as tokens get it, at any width. The power -1 of SGD's other biases would double it each time."""
    changes = [bias_moved(width, KINDS[kind]) for width in WIDTHS]
    assert 0 < max(changes) < 1.05 * min(changes)
