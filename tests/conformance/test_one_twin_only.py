"""A user's own optimizer, which only one twin has."""

import pytest

from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.model.one_twin import check_comparable
from tests.conformance.small_engine import CONFIG, VOCAB, batch
from tests.tiers import some_slow

OWN = {"torch": "torch:nadam", "flax": "flax:adabelief"}
OTHER = {"torch": "flax:adabelief", "flax": "torch:nadam"}


@pytest.fixture
def own_optimizer(twin, monkeypatch):
    """Gives the kind of an optimizer that one line has put into the twin's registry."""
    kind = OWN[twin.NAME]
    monkeypatch.setattr(f"slm_{twin.NAME}.optim.OPTIMIZERS", twin.OPTIMIZERS | {kind: twin.library_optimizer})
    return kind


@pytest.mark.parametrize("remat", some_slow(("none", "block"), "none"))
def test_a_users_own_optimizer_takes_one_line(twin, own_optimizer, tmp_path, remat):
    """It trains, saves and goes on from its checkpoint. The schedule sets its learning rate."""
    overrides = {"memory.remat": remat, "model.n_layers": 2}
    config = with_values(CONFIG, {"optim.kind": own_optimizer} | overrides)
    validate(config)
    engine, other = twin.build(config, VOCAB), twin.build(config, VOCAB)
    losses = [engine.fetch(engine.train_step(batch(), 1e-2, step))["loss"] for step in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    engine.save(tmp_path)
    other.restore(tmp_path)
    for trained in (engine, other):
        trained.train_step(batch(), 1e-2, 20)
    a, b = engine.export_state(), other.export_state()
    assert a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)
    assert {"optim/count", "optim/m/embed.weight", "optim/v/embed.weight"} <= a.keys()
    engine.train_step(batch(), 0.0, 21)
    after = engine.export_state()
    assert all(after[name].tobytes() == a[name].tobytes() for name in a if name.startswith("params/"))


def test_an_optimizer_of_one_twin_is_refused_if_both_are_compared(twin, own_optimizer):
    config = with_values(CONFIG, {"optim.kind": own_optimizer})
    with pytest.raises(UserError, match="nothing to compare") as caught:
        check_comparable(config)
    assert "\n" not in str(caught.value)
    for wrong, words in ((f"{own_optimizer}x", "not a line of OPTIMIZERS"), (OTHER[twin.NAME], "has no twin in")):
        with pytest.raises(UserError, match=words):
            twin.build(with_values(config, {"optim.kind": wrong}), VOCAB)
    for wrong in (own_optimizer.partition(":")[0] + ":", "jax:adam", "adam"):
        with pytest.raises(UserError, match="is not one of"):
            validate(with_values(config, {"optim.kind": wrong}))
