"""A stopped run of tests continues where it stopped, and says how long it takes."""

from types import SimpleNamespace

import pytest

from tests import resumed


def report(name: str, when: str, outcome: str = "passed", duration: float = 1.0) -> SimpleNamespace:
    return SimpleNamespace(nodeid=name, when=when, passed=outcome == "passed", duration=duration)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(resumed, "KEPT", tmp_path / "kept" / "passed.jsonl")
    monkeypatch.setattr(resumed, "sources", lambda: "now")
    return resumed.KEPT


def test_only_a_test_whose_phases_all_pass_is_left_out(kept):
    recorder = resumed.Recorder({}, SimpleNamespace())
    outcomes = {
        "good": ("passed", "passed", "passed"), "bad": ("passed", "failed", "passed"),
        "skipped": ("skipped", "passed"), "leaky": ("passed", "passed", "failed"),
    }  # fmt: skip
    for name, each in outcomes.items():
        phases = ("setup", "call", "teardown") if len(each) == 3 else ("setup", "teardown")
        for when, outcome in zip(phases, each, strict=True):
            recorder.pytest_runtest_logreport(report(name, when, outcome))
    lines = resumed.read(kept)
    assert lines == [("good", 3.0, "now")]
    assert resumed.passed(lines, "now") == {"good"}
    assert resumed.passed(lines, "after a change") == set()
    assert resumed.seconds(lines) == {"good": 3.0}


def test_a_line_that_was_cut_off_is_left_out(kept):
    kept.parent.mkdir()
    kept.write_text('["a", 1.0, "now"]\n["b", 2.0, "no')
    assert resumed.read(kept) == [("a", 1.0, "now")]


@pytest.mark.parametrize(
    "known, text",
    [
        ({}, "3 tests, 3 of which never passed on this machine: their time is unknown"),
        ({"a": 60.0, "b": 60.0, "c": 120.0}, "3 tests, about 2.0 minutes"),
        ({"a": 600.0, "b": 60.0}, "3 tests, about 10.0 minutes, 1 of which never passed on this machine"),
    ],
)
def test_the_estimate_is_a_share_for_each_worker_or_the_longest_test(known, text):
    assert resumed.estimate(["a", "b", "c"], known, workers=2).startswith(text)
