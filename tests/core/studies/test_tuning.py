"""The search for each variant's own settings: trials are kept, go on after an interruption, and the best is used."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from slm_core.errors import UserError
from slm_core.studies import tuning
from slm_core.studies.study import Study
from slm_core.studies.tuning import check_ranges, parse_range, read_trials, tuned
from slm_core.studies.variants import make_variants

BEST = {"rmsnorm": 3e-3, "dyt": 3e-4}


@pytest.fixture
def study(tmp_path):
    return Study(
        folder=tmp_path / "study",
        preset="configs/default.py",
        overrides={},
        variants=make_variants(["model.norm.kind=rmsnorm,dyt"], []),
        frameworks=("torch",),
        seeds=1,
        match="steps",
        threads=1,
        question="",
        command="",
    )


@pytest.fixture
def runs(monkeypatch):
    """Stands for training: the loss is lowest at the variant's own best rate. Yields the cells that were run."""
    done = []

    def read_run(path, variant, framework, seed):
        cell = next(cell for cell in done if cell.name == path.name)
        distance = math.log10(cell.overrides["optim.lr"] / BEST[variant])
        return SimpleNamespace(loss=2 + distance**2 if abs(distance) < 1.4 else math.nan)

    monkeypatch.setattr(tuning, "read_run", read_run)
    return done


def search(study, runs, trials, stop_after=math.inf):
    def run(cells):
        if len(runs) >= stop_after:
            return False
        runs.extend(cells)
        return True

    return tuned(study, [parse_range("optim.lr=1e-4..1e-2")], trials, run)


def test_each_variant_gets_its_own_best_value(study, runs):
    made, complete = search(study, runs, 12)
    assert complete and len(runs) == 24
    for name, best in BEST.items():
        assert made.adjusted[name]["optim.lr"] == pytest.approx(best, rel=0.6)
        assert "best of 12 trials in torch, loss 2.0" in made.notes[name][0]


def test_the_first_trial_has_the_variant_s_own_value_and_seeds_are_not_the_study_s(study, runs):
    search(study, runs, 2)
    assert [cell.overrides["optim.lr"] for cell in runs[:2]] == [1e-3, 1e-3]
    assert {cell.seed for cell in runs} == {tuning.SEED}
    assert all(1e-4 <= cell.overrides["optim.lr"] <= 1e-2 for cell in runs)


def test_an_interrupted_search_goes_on_and_repeats_nothing(study, runs):
    _, complete = search(study, runs, 6, stop_after=6)
    assert not complete and len(runs) == 6
    made, complete = search(study, runs, 6)
    assert complete and len(runs) == 12 and len({cell.name for cell in runs}) == 12
    assert len(read_trials(study)) == 12
    again, complete = search(study, runs, 6)
    assert complete and len(runs) == 12 and again.adjusted == made.adjusted


def test_trials_that_diverged_are_shown_without_a_loss(study, runs):
    search(study, runs, 8)
    trials = read_trials(study)
    assert {trial.variant for trial in trials} == {"rmsnorm", "dyt"}
    expected = {
        (t.variant, t.values["optim.lr"]): abs(math.log10(t.values["optim.lr"] / BEST[t.variant])) for t in trials
    }
    assert all((trial.loss is None) == (expected[trial.variant, trial.values["optim.lr"]] >= 1.4) for trial in trials)


def test_a_range_of_whole_numbers_and_its_scale():
    assert parse_range("train.batch_size=4..64") == tuning.Range("train.batch_size", 4, 64, whole=True)
    assert parse_range("train.batch_size=4..64").log and not parse_range("optim.weight_decay=0..0.3").log


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr=1e-3", "write --tune=FIELD=LOW..HIGH"),
        ("optim.lrr=1e-4..1e-2", "did you mean optim.lr"),
        ("model.norm.kind=a..b", "is not a number; compare its values with --vary"),
        ("optim.lr=1e-2..1e-4", "1e-2 must be less than 1e-4"),
        ("optim.lr=low..high", "must be numbers that optim.lr can have"),
    ],
)
def test_a_range_that_cannot_be_is_one_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_range(text)


def test_ends_that_a_variant_cannot_have_are_refused_before_anything_runs(study):
    with pytest.raises(UserError, match=r"variant 'rmsnorm': .*optim.lr=-1.0 must be more than 0"):
        check_ranges(study, [parse_range("optim.lr=-1..1")])
    varied = make_variants([], ["a:", "b: optim.lr=1e-4"])
    with pytest.raises(UserError, match="variant 'b' sets it; leave one out"):
        check_ranges(dataclasses.replace(study, variants=varied), [parse_range("optim.lr=1e-4..1e-2")])
