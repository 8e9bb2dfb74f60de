"""Proves the twins equal: runs the suite for the quick cases, for one config or component, or for everything."""

import os
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from parity.cases import cases, config_case
from parity.checks import CHECKS
from parity.report import Table, markdown, read_json, write_json, write_markdown
from parity.selection import select
from parity.suite import Result, checks_of
from parity.tolerances import TOLERANCES
from parity.workers import Task, run_cases
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError, nearest

DESCRIPTION = """Builds both twins, on the CPU, and compares them check by check: initial weights, logits, gradients,
one update, a loss curve, decoding, and resuming one twin's run in the other. Prints the worst error of each check;
exits with 1 if an error is above its tolerance.
Without --config: a small model for each component and option. With --config: that config at full size."""

FLAGS = [
    Flag(
        "component",
        str,
        "",
        "only a few cases about this component, such as mla, rope, adamw, or choice, such as yarn, qk_norm=l2",
    ),
    Flag("checks", str, ",".join(CHECKS), "checks to run, with commas"),
    Flag("precision", str, ",".join(TOLERANCES), "precisions, with commas; half precisions have cases of their own"),
    Flag("all", bool, False, "every case: also larger models, and every preset at full size (about 13 GB of memory)"),
    Flag("json", str, "models/parity.json", "file for all results, as JSON, written as they come; empty: none"),
    Flag("resume", bool, False, "go on from the --json file, if the same sources and versions wrote it"),
    Flag("markdown", str, "", "file for the results as a page (docs/parity.md); empty: none"),
    Flag("jobs", int, 0, "processes; 0: one per core"),
]


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    checks = _words("checks", flags["checks"], list(CHECKS))
    precisions = _words("precision", flags["precision"], list(TOLERANCES))
    one = invocation.config_given or bool(invocation.overrides)
    if one:
        chosen, thorough = [config_case(invocation.preset, invocation.config)], True
    else:
        chosen = select(cases(), flags["component"], flags["all"])
        thorough = bool(flags["component"] or flags["all"])
    tasks = [
        (case, name)
        for case in chosen
        for name in precisions
        if (thorough or name in case.quick) and checks_of(case, name, checks)
    ]
    if not tasks:
        raise UserError(
            f"--checks={flags['checks']} --precision={flags['precision']}: no case has those; leave one out"
        )
    # The name of a preset does not say what was overridden.
    known = read_json(Path(flags["json"])) if flags["resume"] and flags["json"] and not one else []
    _run(tasks, known, checks, precisions, flags)


def _run(tasks: list[Task], known: list[Result], checks: list[str], precisions: list[str], flags: dict) -> None:
    """Runs the tasks that no known result answers, and writes all results. Exits with 1 if one failed."""
    done, left = _split(tasks, known, checks)
    jobs = flags["jobs"] or os.cpu_count() or 1
    # Large models one at a time: two of them need twice the memory.
    small, large = [task for task in left if not task[0].large], [task for task in left if task[0].large]
    batches = chain(done, run_cases(small, checks, jobs), run_cases(large, checks, 1))
    used = [name for name in precisions if any(name == task[1] for task in tasks)]
    order = {(case.name, name): i for i, (case, name) in enumerate(tasks)}
    others = [result for result in known if (result.case, result.precision) not in order]
    results = []
    with Table(len(tasks), checks, used) as table:
        for batch in batches:
            table.add(batch)
            results += batch
            if flags["json"]:
                write_json(Path(flags["json"]), results + others)
        table.conclude(results)
    places = {name: i for i, name in enumerate(CHECKS)}
    results.sort(key=lambda result: (order[result.case, result.precision], places[result.check]))
    if flags["markdown"]:
        page = markdown(results, {case.name: case.section for case, _ in tasks}, _command(flags))
        write_markdown(Path(flags["markdown"]), page)
    for file in (flags["json"], flags["markdown"]):
        if file:
            print(f"written: {file}")
    if not all(result.passed for result in results):
        raise SystemExit(1)


def _split(tasks: list[Task], known: list[Result], checks: list[str]) -> tuple[list[list[Result]], list[Task]]:
    """Returns the known results of the tasks that passed before, and the tasks that are left."""
    passed = {(result.case, result.precision, result.check): result for result in known if result.passed}
    done, left = [], []
    for case, name in tasks:
        keys = [(case.name, name, check) for check in checks_of(case, name, checks)]
        if all(key in passed for key in keys):
            done.append([passed[key] for key in keys])
        else:
            left.append((case, name))
    return done, left


def _command(flags: dict[str, Any]) -> str:
    """Returns the command line, without the flags that do not change the results."""
    words = [word for word in sys.argv[1:] if word.startswith("--config")]
    for flag in FLAGS:
        value = flags[flag.name]
        if value != flag.default and flag.name not in ("json", "resume", "jobs"):
            words.append(f"--{flag.name}" if flag.type is bool else f"--{flag.name}={value}")
    return " ".join(["uv run scripts/check_parity.py", *words])


def _words(flag: str, text: str, known: list[str]) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise UserError(f"--{flag}={text}: '{word}' is not one of {', '.join(known)}{nearest(word, known)}")
    return words


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
