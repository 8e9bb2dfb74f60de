"""What a study of two variants resolves, against a table of Student's t and scipy."""

import dataclasses
import math
import os

import numpy as np
import pytest
from scipy import stats

from slm_core.errors import UserError
from slm_core.studies.calibration.resolution import elapsed, resolution
from tests.core.studies.made_up import study

OFFSETS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
"""Five differences whose standard deviation is the root of 2.5."""


@pytest.fixture
def made_of(tmp_path):
    """Makes a study of two variants with folders: run k begins at second k and ends at second 10 k + 100."""

    def make(mean: float):
        result = study({"a": {"torch": [2.0] * 5}, "b": {"torch": list(2.0 + mean + OFFSETS / 1000)}})
        cells = []
        for place, cell in enumerate(result.cells):
            folder = tmp_path / f"run{place}"
            folder.mkdir(exist_ok=True)
            for name, second in (("config.json", place), ("metrics.jsonl", 10 * place + 100)):
                (folder / name).touch()
                os.utime(folder / name, (second, second))
            cells.append(dataclasses.replace(cell, folder=str(folder)))
        return dataclasses.replace(result, cells=tuple(cells))

    return make


def test_a_resolved_difference_is_the_critical_t_times_the_standard_error(made_of):
    found = resolution(made_of(0.003), 0.01)
    assert found.error == pytest.approx(math.sqrt(2.5 / 5) / 1000)
    assert found.resolved == pytest.approx(4.6041 * found.error, rel=1e-5)  # t(4), 99.5%, of any table
    assert found.comparison.pooled.mean == pytest.approx(0.003)


def test_a_mean_that_is_just_resolved_has_the_p_value_of_the_level(made_of):
    just = resolution(made_of(0.0), 0.01).resolved
    assert stats.ttest_1samp(just + OFFSETS / 1000, 0).pvalue == pytest.approx(0.01)
    assert resolution(made_of(just), 0.01).comparison.pooled.p_t == pytest.approx(0.01)


def test_a_visible_difference_is_larger_than_one_that_is_just_resolved(made_of):
    found = resolution(made_of(0.0), 0.01)
    assert found.visible > found.resolved
    noncentrality = found.visible / found.error
    assert stats.nct.sf(stats.t.isf(0.005, 4), 4, noncentrality) == pytest.approx(0.8, abs=1e-3)


def test_the_time_is_from_the_first_file_to_the_last(made_of):
    assert elapsed(made_of(0.0)) == 10 * 9 + 100


def test_a_study_of_another_kind_is_refused():
    with pytest.raises(UserError, match="has 1 variants; it must have two"):
        resolution(study({"a": {"torch": [2.0, 2.1]}}), 0.01)
    with pytest.raises(UserError, match="has 1 seeds with a loss in both variants"):
        resolution(study({"a": {"torch": [2.0, None]}, "b": {"torch": [2.0, 2.1]}}), 0.01)
