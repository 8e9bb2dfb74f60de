"""Runs the proof of every small case under coverage.py, and lists what of the twins it does not reach.

`python -m tests.parity.covered JOBS` prints {twin file: {"lines", "branches", "missing"}} as JSON; see `File`.
PyTorch's backward passes run in the thread that asks for them, as long as it is on the CPU. What JAX compiles is
measured while it is traced. The reasons for what is missing are in `tests/parity/uncovered.py`.
"""

import ast
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from parity.cases import Case, cases
from parity.workers import pin_environment
from slm_core.config.layers import layer_specs

ROOT = Path(__file__).parents[2]
TWINS = ("slm_torch", "slm_flax")
PACKAGES = ("layers", "optim", "quantization")
FILES = ("model", "loss", "generate", "remat", "stack", "params", "numerics", "trainer")
"""What is measured of each twin: folders and files. The others compute nothing of a model: devices, memory, pages."""

UPDATES, HANDED_OVER = 16, 4
"""Updates of a loss curve and of a resume. The 17th runs no line that the 16th does not."""

DATA = ".coverage"
"""Beginning of the names of the files with what each process measured."""


@dataclass
class File:
    """What the proof reached of a file.

    Args:
      lines, branches: [reached, in all].
      missing: what it did not reach: a function "name()", a line, or a branch "line: never true".
    """

    lines: list[int]
    branches: list[int]
    missing: list[str]


def tasks() -> list[tuple[Case, str]]:
    """Lists the small cases in float64 and in the half precisions, and some in float32.

    These are the ones that run so by default, and those with the fused kernel: JAX's function has no float64.
    """
    small = [case for case in cases() if not case.large]
    return [(case, name) for case in small for name in case.precisions if name != "float32" or _in_float32(case)]


def _in_float32(case: Case) -> bool:
    return "float32" in case.quick or any(layer.attention.kernel == "fused" for layer in layer_specs(case.config.model))


def measure(todo: Sequence[tuple[Case, str]], jobs: int) -> dict[str, File]:
    """Runs the proof of some cases; returns {file from the project's root: what it reached}."""
    pin_environment()
    with tempfile.TemporaryDirectory() as folder:
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(folder,))
        with pool:
            for number, failed in enumerate(pool.map(_prove, todo), 1):
                print(f"{number}/{len(todo)} {todo[number - 1][0].name}", file=sys.stderr, flush=True)
                if failed:
                    raise RuntimeError("\n".join(failed))
        whole = _measurement(folder)
        whole.combine()
        whole.json_report(outfile=str(Path(folder, "report.json")))
        report = json.loads(Path(folder, "report.json").read_text())["files"]
    return {name: _file(name, told) for name, told in sorted(report.items())}


_running: Any = None
"""The measurement of this process."""


def _measurement(folder: str, **options: Any) -> Any:
    """Makes a measurement of the twins' branches, whose data are in a folder."""
    import coverage

    parts = (*(f"{package}/*" for package in PACKAGES), *(f"{file}.py" for file in FILES))
    sources = [str(ROOT / twin / part) for twin in TWINS for part in parts]
    return coverage.Coverage(str(Path(folder, DATA)), branch=True, include=sources, config_file=False, **options)


def _start(folder: str) -> None:
    """Begins to measure, before anything imports a twin: what runs at the import counts."""
    global _running
    _running = _measurement(folder, data_suffix=str(os.getpid()))
    _running.start()
    pin_environment()


def _prove(task: tuple[Case, str]) -> list[str]:
    """Runs the checks of a case; returns those that failed."""
    import parity.checks
    from parity.pair import pin_threads
    from parity.suite import run_case

    pin_threads()
    parity.checks.UPDATES, parity.checks.HANDED_OVER = UPDATES, HANDED_OVER
    results = list(run_case(*task))
    _running.stop()
    _running.save()
    _running.start()
    return [str(result) for result in results if not result.passed]


def _file(name: str, told: dict[str, Any]) -> File:
    summary = told["summary"]
    return File(
        [summary["covered_lines"], summary["num_statements"]],
        [summary["covered_branches"], summary["num_branches"]],
        list(_missing(name, told)),
    )


def _missing(name: str, told: dict[str, Any]) -> Iterator[str]:
    """Yields what was not reached of a file. A function that never ran comes once, in the place of its lines."""
    source = (ROOT / name).read_text(encoding="utf-8")
    texts = [line.strip() for line in source.splitlines()]
    unrun = {
        function: lines["missing_lines"]
        for function, lines in told["functions"].items()
        if function and lines["missing_lines"] and not lines["executed_lines"]
    }
    inside = {line for lines in unrun.values() for line in lines}
    yield from (f"{function}()" for function in unrun)
    yield from (texts[line - 1].partition("  #")[0] for line in told["missing_lines"] if line not in inside)
    bodies = _bodies(ast.parse(source))
    for start, end in told["missing_branches"]:
        if start not in told["missing_lines"]:
            condition = texts[start - 1].partition("  #")[0].removesuffix(":")
            yield f"{condition}: never {'true' if end in bodies.get(start, ()) else 'false'}"


def _bodies(tree: ast.Module) -> dict[int, set[int]]:
    """Finds {line of a condition or loop: first line of its body}."""
    found: dict[int, set[int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.For | ast.While | ast.With):
            found.setdefault(node.lineno, set()).add(node.body[0].lineno)
        if isinstance(node, ast.match_case):
            found.setdefault(node.pattern.lineno, set()).add(node.body[0].lineno)
    return found


if __name__ == "__main__":
    chosen = [task for task in tasks() if not sys.argv[2:] or task[0].name in sys.argv[2:]]
    print(json.dumps({name: vars(file) for name, file in measure(chosen, int(sys.argv[1])).items()}))
