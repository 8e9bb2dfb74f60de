"""docs/statistics.md, of made-up studies whose goals are reached or not."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from slm_core.studies.calibration import page as subject
from slm_core.studies.calibration.page import (
    _goal_itself,
    _goal_pairing,
    _goal_planted,
    _goal_small,
    figures,
    write_page,
)
from slm_core.studies.calibration.pairing import variance_ratios
from slm_core.studies.calibration.planted import Planted
from slm_core.studies.calibration.resolution import resolution
from slm_core.studies.results import StudyResult
from tests.core.studies.made_up import study

NAMES = ("no decay", "LayerNorm", "QK-norm", "squared ReLU", "one key head", "learned")


def named(result: StudyResult, name: str) -> StudyResult:
    return dataclasses.replace(
        result, name=name, command=f"uv run scripts/compare.py --study configs/studies/{name}.py"
    )


def pairs(own: float) -> StudyResult:
    """Makes up six pairs: losses of one seed share a noise of 0.02, and each has its own noise beside it."""
    rng = np.random.default_rng(0)
    shared = rng.normal(2.9, 0.02, 20)
    losses = {name: {"torch": list(shared + rng.normal(0, own, 20))} for name in ("baseline", *NAMES)}
    return named(study(losses), "pairing")


def small(folder: Path, mean: float) -> StudyResult:
    """Makes up two variants that differ by about `mean`, and folders of their runs."""
    base, offsets = np.array([2.0, 2.1, 1.9, 2.05, 1.95]), np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 4000
    made = study(
        {"min_lr_ratio=0.1": {"torch": list(base)}, "min_lr_ratio=0.12": {"torch": list(base + mean + offsets)}}
    )
    for name in ("config.json", "metrics.jsonl"):
        (folder / name).touch()
    cells = tuple(dataclasses.replace(cell, folder=str(folder)) for cell in made.cells)
    return named(dataclasses.replace(made, cells=cells), "small_difference")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The figures of made-up studies that reach the goals of pairing and of a small difference."""
    pool = study({"small": {"torch": list(np.random.default_rng(0).normal(2.9, 0.02, 40))}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"COMPARISONS": 12, "PLANTED": 12, "EFFECTS": (0.0, 1.0)}.items():
            patch.setattr(subject, name, value)
        return figures(named(pool, "itself"), [pairs(0.002)], small(tmp_path_factory.mktemp("run"), -0.003))


def goals(text: str) -> dict[str, str]:
    """Reads {question: whether its goal is reached} of the page's first table."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if re.match(r"\| (Does|Is|Which) ", line)]
    return {cells[0].strip(): cells[-1].strip() for cells in rows}


def test_a_page_says_which_goals_are_reached_and_shows_its_pictures(made, tmp_path):
    target = tmp_path / "statistics.md"
    written = write_page(made, target, "uv run scripts/pages/calibration.py")
    text = target.read_text()
    assert written == [target, tmp_path / "statistics-planted.png", tmp_path / "statistics-pairing.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and f"({path.name})" in text for path in written[1:])
    reached = goals(text)
    assert list(reached.values())[2:] == ["yes", "yes"] and len(reached) == 4
    assert (
        "−0.0030 nats at p < 0.0001" in text
    )  # t = -0.003 / (sqrt(2.5 / 5) / 4000) = -16.97 with 4 degrees of freedom
    assert all(name in text for name in NAMES)
    assert [line for line in text.splitlines() if line.startswith("uv run")] == [
        *(
            f"uv run scripts/compare.py --study configs/studies/{n}.py"
            for n in ("itself", "pairing", "small_difference")
        ),
        "uv run scripts/pages/calibration.py",
    ]


def test_a_page_says_which_goals_are_not_reached(made, tmp_path):
    far = variance_ratios(pairs(0.05))
    unresolved = dataclasses.replace(made, ratios=tuple(far), resolution=resolution(small(tmp_path, 0.0001), 0.01))
    write_page(unresolved, tmp_path / "statistics.md", "command")
    reached = goals((tmp_path / "statistics.md").read_text())
    assert list(reached.values())[2:] == ["**no**", "**no**"]


def test_five_pairs_are_too_few(made):
    assert _goal_pairing(made)[-1] == "yes"
    assert _goal_pairing(dataclasses.replace(made, ratios=made.ratios[:5]))[-1] == "**no**"
    assert _goal_pairing(dataclasses.replace(made, ratios=()))[-2:] == ("no pair was measured", "no")


def test_a_study_that_took_too_long_does_not_reach_its_goal(made):
    late = dataclasses.replace(made, resolution=dataclasses.replace(made.resolution, seconds=31 * 60))
    assert _goal_small(made)[-1] == "yes" and _goal_small(late)[-1] == "**no**"
    assert "31m00s" in _goal_small(late)[2]


def with_found(row: Planted, found: int) -> Planted:
    return dataclasses.replace(row, rate=dataclasses.replace(row.rate, found=found))


def test_wins_above_five_percent_are_told(made):
    goal = {
        n: _goal_itself(dataclasses.replace(made, itself=[with_found(row, n) for row in made.itself])) for n in (0, 1)
    }
    assert goal[0][-1] == "yes"
    assert goal[1][-2:] == ("8.3%, 95% interval 0.2% to 38.5%", "**no**")


def test_rates_beyond_chance_are_told(made):
    wrong = dataclasses.replace(made, planted=[with_found(row, 12) for row in made.planted])
    assert _goal_planted(wrong)[-1] == "**no**"
