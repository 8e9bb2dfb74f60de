"""Proves the twins equal: climbs the ladder for the quick cells, for one config or component, or for everything."""

import os
import sys
from itertools import chain
from pathlib import Path

import scripts._path  # noqa: F401
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError, nearest

DESCRIPTION = """Builds both twins, on the CPU, and compares them rung by rung: initial weights, logits, gradients, one
update, a loss curve, decoding, hand-off. Prints the worst error of each rung; exits with 1 if one is over budget.
Without --config: a small model for each component and option. With --config: that config at full size.
With --bisect: the first tensor in which two models differ, in execution order, and the module that is at fault: the
twins of --config, or --run against --against."""

FLAGS = [
    Flag(
        "component",
        str,
        "",
        "only a few cells about this component, such as mla, rope, adamw, or choice, such as yarn, qk_norm=l2",
    ),
    Flag("rungs", str, "0,1,2,3,4,5,6", "rungs to climb, with commas"),
    Flag(
        "precision",
        str,
        "float64,float32,float16,bfloat16",
        "precisions, with commas; half ones have cells of their own",
    ),
    Flag("all", bool, False, "every cell: also larger curves, and every preset at full size (about 13 GB of memory)"),
    Flag("json", str, "models/parity.json", "file for all results, as JSON, written as they come; empty: none"),
    Flag("resume", bool, False, "go on from the --json file, if the same sources and versions wrote it"),
    Flag("markdown", str, "", "file for the results as a page (docs/parity.md); empty: none"),
    Flag("jobs", int, 0, "processes; 0: one a core"),
    Flag("bisect", bool, False, "names the first tensor in which two models differ; takes one --precision"),
    Flag("run", str, "", "to bisect: a run, models/NAME/checkpoints/step-NUMBER or a Hugging Face checkpoint"),
    Flag("against", str, "", "what it should agree with; a Hugging Face checkpoint alone: our twin of it is compared"),
    Flag("framework", str, "", "twin that computes both; empty: that of --run", choices=("", "torch", "flax")),
]


def run(invocation: Invocation) -> None:
    from parity.budgets import BUDGETS, RUNGS
    from parity.cells import cells, config_cell, select
    from parity.ladder import rungs_of
    from parity.report import read_json

    flags = invocation.flags
    if flags["bisect"]:
        return _bisect(invocation)
    rungs = [int(word) for word in _words("rungs", flags["rungs"], [str(rung) for rung in RUNGS])]
    precisions = _words("precision", flags["precision"], list(BUDGETS))
    one = invocation.config_given or bool(invocation.overrides)
    if one:
        chosen, thorough = [config_cell(invocation.preset, invocation.config)], True
    else:
        chosen = select(cells(), flags["component"], flags["all"])
        thorough = bool(flags["component"] or flags["all"])
    tasks = [
        (cell, name)
        for cell in chosen
        for name in precisions
        if (thorough or name in cell.quick) and rungs_of(cell, name, rungs)
    ]
    if not tasks:
        raise UserError(
            f"--rungs={flags['rungs']} --precision={flags['precision']}: no cell climbs those; leave one out"
        )
    # The name of a preset does not say what was overridden.
    known = read_json(Path(flags["json"])) if flags["resume"] and flags["json"] and not one else []
    _climb(tasks, known, rungs, precisions, flags)


def _bisect(invocation: Invocation) -> None:
    from parity.budgets import BUDGETS
    from parity.cells import config_cell
    from parity.workers import pin_environment

    flags, given = invocation.flags, invocation.config_given or bool(invocation.overrides)
    precisions = _words("precision", flags["precision"], list(BUDGETS))
    precision = precisions[0] if len(precisions) == 1 else ""
    if flags["run"] and not flags["against"]:
        raise UserError(f"--run={flags['run']} needs --against=FOLDER: what it should agree with")
    if flags["against"] and given:
        raise UserError("--config does not go with --against: folders have configs of their own; leave it out")
    pin_environment()
    from parity.bisect.command import bisect_cell, bisect_folders

    if flags["against"]:
        agree = bisect_folders(flags["run"], flags["against"], flags["framework"], precision)
    else:
        agree = bisect_cell(config_cell(invocation.preset, invocation.config), precision or "float64")
    if not agree:
        raise SystemExit(1)


def _climb(tasks, known, rungs: list[int], precisions: list[str], flags) -> None:
    from parity.ladder import rungs_of
    from parity.report import Table, markdown, write_json, write_markdown
    from parity.workers import climb_all

    passed = {(result.cell, result.precision, result.rung): result for result in known if result.passed}
    done, left = {}, []
    for cell, name in tasks:
        keys = [(cell.name, name, rung) for rung in rungs_of(cell, name, rungs)]
        if all(key in passed for key in keys):
            done[cell.name, name] = [passed[key] for key in keys]
        else:
            left.append((cell, name))
    jobs = flags["jobs"] or os.cpu_count() or 1
    # Large models one at a time: two of them need twice the memory.
    small, large = [task for task in left if not task[0].large], [task for task in left if task[0].large]
    batches = chain(done.values(), climb_all(small, rungs, jobs), climb_all(large, rungs, 1))
    used = [name for name in precisions if any(name == task[1] for task in tasks)]
    order = {(cell.name, name): i for i, (cell, name) in enumerate(tasks)}
    others = [result for result in known if (result.cell, result.precision) not in order]
    results = []
    with Table(len(tasks), rungs, used) as table:
        for batch in batches:
            table.add(batch)
            results += batch
            if flags["json"]:
                write_json(Path(flags["json"]), results + others)
        table.conclude(results)
    results.sort(key=lambda result: (order[result.cell, result.precision], result.rung))
    if flags["markdown"]:
        page = markdown(results, {cell.name: cell.section for cell, _ in tasks}, _command(flags))
        write_markdown(Path(flags["markdown"]), page)
    for file in (flags["json"], flags["markdown"]):
        if file:
            print(f"written: {file}")
    if not all(result.passed for result in results):
        raise SystemExit(1)


def _command(flags) -> str:
    """Returns the command line, without what leaves the results as they are."""
    words = [word for word in sys.argv[1:] if word.startswith("--config")]
    for flag in FLAGS:
        value = flags[flag.name]
        if value != flag.default and flag.name not in ("json", "resume", "jobs"):
            words.append(f"--{flag.name}" if flag.type is bool else f"--{flag.name}={value}")
    return " ".join(["uv run scripts/parity.py", *words])


def _words(flag: str, text: str, known: list[str]) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise UserError(f"--{flag}={text}: '{word}' is not one of {', '.join(known)}{nearest(word, known)}")
    return words


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
