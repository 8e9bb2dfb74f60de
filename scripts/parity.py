"""Proves the twins equal: climbs the ladder for the quick cells, for one config or component, or for everything."""

import os
import sys
from itertools import chain
from pathlib import Path

# Python puts scripts/ first on the path, where this file would hide the package of its name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from slm_core.cli import Flag, Invocation, main  # noqa: E402
from slm_core.errors import UserError, nearest  # noqa: E402

DESCRIPTION = """Builds both twins, on the CPU, and compares them rung by rung: initial weights, logits, gradients, one
update, a loss curve, decoding, hand-off. Prints the worst error of each rung; exits with 1 if one is over budget.
Without --config: a small model for each component and option. With --config: that config at full size."""

FLAGS = [
    Flag("component", str, "", "only cells that use this registry entry, such as rope, swiglu, adamw"),
    Flag("rungs", str, "0,1,2,3,4,5,6", "rungs to climb, with commas"),
    Flag(
        "precision",
        str,
        "float64,float32,float16,bfloat16",
        "precisions, with commas; half ones have cells of their own",
    ),
    Flag(
        "all", bool, False, "also the slow cells: larger curves, and every preset at full size (about 13 GB of memory)"
    ),
    Flag("json", str, "models/parity.json", "file for all results, as JSON; empty: none"),
    Flag("jobs", int, 0, "processes; 0: one a core"),
]


def run(invocation: Invocation) -> None:
    from parity.budgets import BUDGETS, RUNGS
    from parity.cells import cells, config_cell, select
    from parity.ladder import rungs_of
    from parity.workers import climb_all

    flags = invocation.flags
    rungs = [int(word) for word in _words("rungs", flags["rungs"], [str(rung) for rung in RUNGS])]
    precisions = _words("precision", flags["precision"], list(BUDGETS))
    one = invocation.config_given or invocation.overrides
    chosen = [config_cell(invocation.preset, invocation.config)] if one else cells()
    chosen = select(chosen, flags["component"], slow=flags["all"] or bool(one))
    tasks = [(cell, name) for cell in chosen for name in precisions if rungs_of(cell, name, rungs)]
    if not tasks:
        raise UserError(
            f"--rungs={flags['rungs']} --precision={flags['precision']}: no cell climbs those; leave one out"
        )
    jobs = flags["jobs"] or os.cpu_count() or 1
    quick, slow = [task for task in tasks if not task[0].slow], [task for task in tasks if task[0].slow]
    # Large models one at a time: two of them need twice the memory.
    results = chain(climb_all(quick, rungs, jobs), climb_all(slow, rungs, 1))
    used = [name for name in precisions if any(name == task[1] for task in tasks)]
    _climb(results, len(tasks), rungs, used, flags["json"])


def _climb(batches, total: int, rungs: list[int], precisions: list[str], json: str) -> None:
    from parity.report import Table, write_json

    results = []
    with Table(total, rungs, precisions) as table:
        for batch in batches:
            table.add(batch)
            results += batch
        table.conclude(results)
    if json:
        write_json(Path(json), results)
        print(f"written: {json}")
    if not all(result.passed for result in results):
        raise SystemExit(1)


def _words(flag: str, text: str, known: list[str]) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise UserError(f"--{flag}={text}: '{word}' is not one of {', '.join(known)}{nearest(word, known)}")
    return words


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
