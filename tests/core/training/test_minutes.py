"""train.minutes chooses the steps by a clock, and changes nothing else of a run."""

from types import SimpleNamespace

import numpy as np
import pytest

from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.runs.description import read_description
from slm_core.training import loop, minutes
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, make_config

UPDATE, BATCH, TOKEN = 2.0, 0.5, 0.25
"""Seconds that an update, a batch of an evaluation and a token of a sample take, by the clock of these tests."""


class Timed(BigramEngine):
    """Moves the clock."""

    def __init__(self, config, vocab_size, clock):
        super().__init__(config, vocab_size)
        self.clock = clock

    def train_step(self, tokens, lr, step):
        self.clock.now += UPDATE
        return super().train_step(tokens, lr, step)

    def eval_step(self, tokens):
        self.clock.now += BATCH
        return super().eval_step(tokens)

    def decoder(self):
        decoder = super().decoder()
        step = decoder.step

        def timed(token):
            self.clock.now += TOKEN
            return step(token)

        decoder.step = timed
        return decoder


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(minutes, "time", fake)
    monkeypatch.setattr(loop, "time", fake)
    return clock


def run(config, clock):
    """Trains; returns the result, the engine, and the seconds that it took by the clock."""
    engines = []

    def build(config, vocab_size, weights):
        engines.append(Timed(config, vocab_size, clock))
        return engines[-1]

    began = clock.now
    result = train(config, build, "torch")
    return result, engines[-1] if engines else None, clock.now - began


@pytest.mark.parametrize("planned", [2.0, 15.0])
@pytest.mark.parametrize(
    "fields", [{}, {"sample_every": 0, "eval_every": 0}, {"eval_every": 2}, {"sample_every": 3, "sample_tokens": 40}]
)
def test_a_run_lasts_its_minutes(clock, tmp_path, planned, fields):
    """What is measured, evaluated and sampled is part of them; the last update makes up for less than one more."""
    result, _, seconds = run(make_config(tmp_path, minutes=planned, **fields), clock)
    assert result.finished
    assert abs(seconds - 60 * planned) < 0.1 * 60 * planned
    assert read_description(result.folder)["config"].train.steps == result.step


def test_measuring_leaves_no_trace(clock, tmp_path):
    """The weights and the text samples are those of a run that was given its steps."""
    timed, engine, _ = run(make_config(tmp_path, "timed", minutes=3.0), clock)
    given, other, _ = run(make_config(tmp_path, "given", steps=timed.step), clock)
    assert np.array_equal(engine.weights, other.weights)
    texts = [[file.read_text() for file in sorted((r.folder / "samples").iterdir())] for r in (timed, given)]
    assert texts[0] == texts[1]


def test_a_run_that_goes_on_keeps_its_steps(clock, tmp_path, monkeypatch):
    config = make_config(tmp_path, minutes=3.0)
    original, stop = Timed.train_step, 30

    def crash(self, tokens, lr, step):
        if step == stop:
            raise ZeroDivisionError
        return original(self, tokens, lr, step)

    monkeypatch.setattr(Timed, "train_step", crash)
    with pytest.raises(ZeroDivisionError):
        run(config, clock)
    (folder,) = (tmp_path / "models").iterdir()
    steps = read_description(folder)["config"].train.steps
    monkeypatch.setattr(Timed, "train_step", original)
    result, engine, _ = run(config, clock)
    assert result.step == steps > stop
    assert ("export",) not in engine.calls[: engine.calls.index(("train", 28))]
    assert run(config, clock)[0].step == steps  # complete


def test_a_run_is_planned_once(clock, tmp_path):
    """Other minutes are refused; steps can be given to a run that was planned."""
    planned, _, _ = run(make_config(tmp_path, minutes=2.0), clock)
    with pytest.raises(UserError, match="train.minutes=4: .* was begun with train.minutes=2, and its steps are"):
        run(make_config(tmp_path, minutes=4.0), clock)
    longer, _, _ = run(make_config(tmp_path, steps=planned.step + 5), clock)
    assert longer.step == planned.step + 5
    with pytest.raises(UserError, match=f"train.minutes=4: .* was begun with train.steps={longer.step}, and"):
        run(make_config(tmp_path, minutes=4.0), clock)


def test_what_does_not_fit_is_refused_and_leaves_nothing(clock, tmp_path):
    with pytest.raises(UserError, match="train.minutes=0.1: not one update fits; one takes 2 s here"):
        run(make_config(tmp_path, minutes=0.1), clock)
    config = with_values(make_config(tmp_path, minutes=2.0), {"optim.warmup_steps": 500})
    with pytest.raises(UserError, match="optim.warmup_steps=500 must be less than the [0-9]+ updates that fit"):
        run(config, clock)
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize("field", ["run.branch", "run.resume_from"])
def test_mistakes_are_named(tmp_path, field):
    config = make_config(tmp_path, minutes=2.0)
    with pytest.raises(UserError, match=r"train.minutes=2 chooses train.steps, which is set to 20 as well"):
        validate(config, ["train.minutes", "train.steps"])
    with pytest.raises(UserError, match=rf"{field}=other: train.minutes=2 plans a run from its first update"):
        validate(with_values(config, {"run.name": "a", field: "other"}))
