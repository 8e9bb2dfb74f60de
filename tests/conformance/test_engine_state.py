"""The state of an engine is saved, restored and imported; a wrong one is refused."""

import weakref

import numpy as np
import pytest

from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.model.weights import Lazy
from tests.conformance.small_engine import CONFIG, VOCAB, batch


def test_a_saved_state_comes_back(twin, tmp_path):
    """A restored state has the bits of the saved one, and trains on in the same way."""
    config = with_values(CONFIG, {"model.dropout": 0.0})  # whose masks depend on the seed
    engine, other = twin.build(config, VOCAB), twin.build(with_values(config, {"seed": 1}), VOCAB)
    engine.train_step(batch(), 1e-2, 0)
    engine.save(tmp_path)
    other.restore(tmp_path)
    a, b = engine.export_state(), other.export_state()
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
    for trained in (engine, other):
        trained.train_step(batch(), 1e-2, 1)
    a, b = engine.export_state(), other.export_state()
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_later_updates_leave_a_copy_of_the_state_as_it_is(twin):
    """A checkpoint is written from such a copy while updates write over the state, in place or into its buffers."""
    engine = twin.build(with_values(CONFIG, {"model.n_layers": 3, "memory.remat": "block"}), VOCAB)
    engine.fetch(engine.train_step(batch(), 1e-2, 0))
    state = engine.export_state()
    before = {name: value.tobytes() for name, value in state.items()}
    for step in range(1, 3):
        engine.fetch(engine.train_step(batch(), 1e-2, step))
    assert {name: value.tobytes() for name, value in state.items()} == before
    later = engine.export_state()
    assert not np.array_equal(later["params/embed.weight"], state["params/embed.weight"])


def test_a_copy_can_go_into_the_memory_of_an_earlier_one(twin):
    """A copy into earlier memory has the same bits as one into new memory, whatever the engine stores as a stack."""
    engine = twin.build(with_values(CONFIG, {"model.n_layers": 3, "memory.remat": "block"}), VOCAB)
    earlier = engine.export_state()
    engine.fetch(engine.train_step(batch(), 1e-2, 0))
    later, fresh = engine.export_state(earlier), engine.export_state()
    assert {name: value.tobytes() for name, value in later.items()} == {
        name: value.tobytes() for name, value in fresh.items()
    }
    arrays = [name for name in later if not name.startswith("scaler/")]
    assert all(np.shares_memory(later[name], earlier[name]) for name in arrays)


def test_a_missing_checkpoint_is_an_error_of_one_line(twin, tmp_path):
    """A missing checkpoint is an error of one line."""
    with pytest.raises(UserError, match="state.json is missing") as caught:
        twin.build(CONFIG, VOCAB).restore(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_model_is_refused(twin):
    """A state of another model is refused, naming the entry."""
    engine = twin.build(CONFIG, VOCAB)
    state = engine.export_state()
    for name, change in (
        ("params/embed.weight", lambda s: s | {"params/embed.weight": np.zeros((3, 8))}),
        ("optim/count", lambda s: {k: v for k, v in s.items() if k != "optim/count"}),
        ("params/extra", lambda s: s | {"params/extra": np.zeros(1)}),
    ):
        with pytest.raises(UserError, match=name):
            engine.import_state(change(state))


def test_a_state_is_imported_entry_by_entry(twin):
    """A state is read and released entry by entry: only the engine keeps it in memory."""
    engine = twin.build(CONFIG, VOCAB)
    state, given, most, asked = engine.export_state(), [], [], []

    def read(name: str) -> np.ndarray:
        array = np.array(state[name])
        given.append(weakref.ref(array))
        most.append(sum(each() is not None for each in given))
        asked.append(name)
        return array

    engine.import_state(Lazy({name: lambda name=name: read(name) for name in state}))
    assert set(asked) == set(state) and len(asked) < 1.5 * len(state)  # the check of signatures reads some, too
    assert max(most) <= 2  # the one before goes when this one has come
