"""muP beyond the paper's table, whose numbers are in `tests/outside`."""

import pytest

from slm_core.config import Config, Model, Optim
from slm_core.model.mup import hidden_std, logit_factor, lr_multiplier

WIDE = Model(d_model=512, mup_base_width=128, logit_multiplier=3.0)
"""Four times as wide as the base."""


def test_without_a_base_width_nothing_changes():
    plain = Model(d_model=512, logit_multiplier=3.0)
    assert hidden_std(plain) == plain.init_std and logit_factor(plain) == 3.0
    assert {lr_multiplier(role, Config(model=plain)) for role in ("matrix", "bias")} == {1.0}


def test_a_base_width_divides_the_logits():
    assert logit_factor(WIDE) == 3.0 / 4


@pytest.mark.parametrize(
    ("optim", "of_matrices"),
    [
        (Optim(kind="muon"), 1 / 2),  # the update of a matrix has a largest singular value of order sqrt(width)
        (Optim(kind="muon", muon_scale="spectral"), 1.0),  # here it is of order 1
        (Optim(kind="lion", muon_scale="spectral"), 1 / 4),  # whose updates are +-1, as Adam's are of order 1
        (Optim(kind="adafactor"), 1 / 2),
    ],
)
def test_rates_follow_the_size_of_an_update(optim, of_matrices):
    config = Config(model=WIDE, optim=optim)
    assert lr_multiplier("matrix", config) == of_matrices and lr_multiplier("embedding", config) == 1.0


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_a_bias_of_the_logits_has_the_same_rate_at_any_width(optim):
    config = Config(model=Model(d_model=256, mup_base_width=64), optim=Optim(kind=optim))
    assert lr_multiplier("head_bias", config) == 1.0
