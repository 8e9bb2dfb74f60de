"""Continues a stopped tier of tests, and says how long it takes: a pytest plugin.

Each test that passes adds a line to `.pytest_cache/passed.jsonl`: its name, its seconds, and a hash of the sources.
`--resume` leaves out the tests that passed with the same sources. A run starts with an estimate of its length, from the
seconds of the last run of each test on this machine, whatever the sources were.
"""

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from parity.oracle.journal import Journal
from parity.sources import ROOT, hash_of

KEPT = ROOT / ".pytest_cache" / "passed.jsonl"
SOURCES = ("slm_core", "slm_torch", "slm_flax", "parity", "configs", "scripts", "tests", "docs")


LEFT_OUT = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--resume", action="store_true", help="leave out tests that passed with these sources")


def pytest_configure(config: pytest.Config) -> None:
    # The workers of xdist must leave out the same tests, so they take the names of the process that starts them.
    if hasattr(config, "workerinput"):
        config.stash[LEFT_OUT] = set(config.workerinput["left_out"])
        return
    KEPT.parent.mkdir(exist_ok=True)
    journal = opened(KEPT)
    config.stash[LEFT_OUT] = passed(journal.entries, sources()) if config.getoption("--resume") else set()
    config.pluginmanager.register(Recorder(journal, config), "resumed-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = config.stash[LEFT_OUT]
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


class Recorder:
    """Keeps what passes, in the process that starts the workers."""

    def __init__(self, journal: Journal, config: pytest.Config) -> None:
        self.journal, self.config, self.told = journal, config, False
        self.phases: dict[str, list[pytest.TestReport]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["left_out"] = sorted(self.config.stash[LEFT_OUT])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        if not self.told:
            self.tell(ids, workers=max(1, self.config.getoption("numprocesses", None) or 1))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self.tell([item.nodeid for item in session.items], workers=1)

    def tell(self, names: list[str], workers: int) -> None:
        """Prints how long the tests will take."""
        self.told = True
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            reporter.write_line(estimate(names, seconds(self.journal.entries), workers))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        phases = self.phases.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when == "teardown":
            del self.phases[report.nodeid]
            if all(phase.passed for phase in phases):
                took = round(sum(phase.duration for phase in phases), 2)
                self.journal.write({"test": report.nodeid, "seconds": took, "sources": sources()})


def opened(path: Path) -> Journal:
    """Opens the file of what passed. If most lines have a later one of the same test, these are taken out first."""
    journal = Journal(str(path))
    newest = list({entry["test"]: entry for entry in journal.entries}.values())
    if len(journal.entries) <= 2 * len(newest):
        return journal
    path.write_text("".join(json.dumps(entry) + "\n" for entry in newest), encoding="utf-8")
    return Journal(str(path))


def passed(entries: Iterable[dict[str, Any]], now: str) -> set[str]:
    """Returns the tests that passed with the sources of now."""
    return {entry["test"] for entry in entries if entry["sources"] == now}


def seconds(entries: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Returns how long each test took when it passed last."""
    return {entry["test"]: entry["seconds"] for entry in entries}


def estimate(names: list[str], known: dict[str, float], workers: int) -> str:
    """Says how long tests take: no less than the longest one, and than an equal share for each worker."""
    times = [known[name] for name in names if name in known]
    text = f"{len(names)} tests"
    if times:
        text += f", about {max(max(times), sum(times) / workers) / 60:.1f} minutes"
    if len(times) < len(names):
        text += f", {len(names) - len(times)} of which never passed on this machine: their time is unknown"
    return text


@functools.cache
def sources() -> str:
    """Returns a hash of what the tests depend on: code, tests and pages."""
    files = [*ROOT.glob("uv.lock"), *(path for name in SOURCES for path in (ROOT / name).rglob("*"))]
    return hash_of(path for path in sorted(files) if path.suffix in (".lock", ".py", ".md", ".json"))
