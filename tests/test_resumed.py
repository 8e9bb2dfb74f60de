"""A stopped run of tests continues where it stopped, and says how long it takes."""

from types import SimpleNamespace

import pytest

from parity.oracle.journal import Journal
from tests import resumed


def report(name: str, when: str, outcome: str = "passed", duration: float = 1.0) -> SimpleNamespace:
    return SimpleNamespace(nodeid=name, when=when, passed=outcome == "passed", duration=duration)


def test_only_a_test_whose_phases_all_pass_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(resumed, "sources", lambda: "now")
    file = str(tmp_path / "passed.jsonl")
    recorder = resumed.Recorder(Journal(file), SimpleNamespace())
    outcomes = {
        "good": ("passed", "passed", "passed"), "bad": ("passed", "failed", "passed"),
        "skipped": ("skipped", "passed"), "leaky": ("passed", "passed", "failed"),
    }  # fmt: skip
    for name, each in outcomes.items():
        phases = ("setup", "call", "teardown") if len(each) == 3 else ("setup", "teardown")
        for when, outcome in zip(phases, each, strict=True):
            recorder.pytest_runtest_logreport(report(name, when, outcome))
    entries = Journal(file).entries
    assert resumed.passed(entries, "now") == {"good"}
    assert resumed.passed(entries, "after a change") == set()
    assert resumed.seconds(entries) == {"good": 3.0}


def test_the_file_does_not_grow_for_ever(tmp_path):
    path = tmp_path / "passed.jsonl"
    for seconds in (1.0, 2.0, 3.0):
        resumed.opened(path).write({"test": "a", "seconds": seconds, "sources": "now"})
    assert resumed.seconds(resumed.opened(path).entries) == {"a": 3.0}
    assert len(path.read_text().splitlines()) == 1


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
