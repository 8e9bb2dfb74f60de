"""Makes mutants of one file of `slm_core`, and lists those that none of its tests catch.

`python -m tests.core.mutants model.positions` prints {"made": number, "left": [name, ...]} as JSON. What both twins
share, no comparison of twins can check. The mutants are made by the rules of `tests/parity/faults/generated.py`.
"""

import contextlib
import io
import json
import sys
from importlib import import_module

import pytest

TESTS = {
    "model.positions": ("core/model/test_positions.py", "outside/test_formulas.py"),
    "model.dropout": ("outside/test_random_numbers.py",),
    "model.initialization": (
        "core/model/test_initialization.py", "outside/test_random_numbers.py", "outside/test_formulas.py",
    ),
    "model.mup": ("core/model/test_mup.py", "outside/test_formulas.py"),
    "model.parameter_groups": ("core/model/test_parameter_groups.py",),
    "training.schedules": ("core/training/test_schedules.py", "outside/test_formulas.py"),
}  # fmt: skip
"""{file of `slm_core`: its tests, in `tests/`}."""

EQUIVALENT: dict[str, dict[str, tuple[str, ...]]] = {
    "model.positions": {
        "a head of one pair turns by theta^0, whatever theta is": (
            "model.positions _ntk: width > 2 -> width >= 2",
            "model.positions _ntk: 1.0 -> 2.0",
            "model.positions _ntk: 2 -> 3",
        ),
        "more slopes, or fewer, of those that are cut off": (
            "model.positions alibi_slopes: 2 * power + 1 -> 2 * power - 1",
            "model.positions alibi_slopes: 1 -> 2",
            "model.positions alibi_slopes: 2 -> 3",
        ),
        "distances that have a bucket of their own do not read the coarse one; at the border both are equal": (
            "model.positions t5_buckets: 1 -> 2",
            "model.positions t5_buckets: distance < exact -> distance <= exact",
        ),
    },
    "training.schedules": {
        "no update comes after the last one": ("training.schedules _fall: 1.0 -> 2.0",),
        "the cosine of pi + x is that of pi - x": (
            "training.schedules _cosine: 1.0 - _fall(since, last) -> 1.0 + _fall(since, last)",
        ),
        "a length of one does the same for a single update": ("training.schedules learning_rates: 0 -> 1",),
        "at the last update of warm-up plus one, both are the peak": (
            "training.schedules learning_rates: k < rising -> k <= rising",
        ),
    },
}
"""{file: {why no test can tell them from the original: names of mutants}}."""


def survivors(name: str) -> dict:
    """Runs the tests of a file for each of its mutants; returns how many were made, and the names of those left."""
    from faults import generated

    tests, made = [f"tests/{test}" for test in TESTS[name]], generated.mutants_of(import_module(f"slm_core.{name}"))
    assert passes(tests), f"the tests of {name} must pass before anything is broken"
    left = []
    for mutant in made:
        with mutant.alive():
            if passes(tests):
                left.append(mutant.name)
    return {"made": len(made), "left": left}


def passes(tests: list[str]) -> bool:
    """Runs tests in this process, up to the first failure, without those that need a twin."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return pytest.main(["-x", "-q", "-n", "0", "-k", "not of_the_twins", *tests]) == 0


if __name__ == "__main__":
    print(json.dumps(survivors(sys.argv[1])))
