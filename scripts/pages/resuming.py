"""Writes the tables of docs/resuming.md: how close a run stays that one twin begins and the other continues."""

import multiprocessing

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file
from slm_core.errors import UserError

COMMAND = "uv run scripts/pages/resuming.py"
DESCRIPTION = """Resumes small runs of each optimizer, of adapters on quantised matrices, and of float16 with its loss
scale in the other twin, both ways, and in another dtype. Writes the tables of the page; its text stays. Takes minutes
and needs no GPU. Exits with 1 if anything is farther apart than its tolerance."""

FLAGS = [
    Flag("markdown", str, "docs/resuming.md", "page whose tables to write"),
    Flag("workers", int, 2, "processes; each compiles one case at a time"),
]


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    if flags["workers"] < 1:
        raise UserError(f"--workers={flags['workers']} must be at least 1")
    target = output_file("markdown", flags["markdown"], [".md"])
    from rich.progress import track

    from parity.resume_page import with_tables
    from parity.resumes import jobs, measure
    from parity.workers import pin_environment

    pin_environment()
    todo = jobs()
    with multiprocessing.get_context("spawn").Pool(flags["workers"], maxtasksperchild=4) as pool:
        each = list(track(pool.imap(measure, todo), "measuring", len(todo)))
    results = [result for results in each for result in results]
    text = target.read_text(encoding="utf-8") if target.is_file() else ""
    target.write_text(with_tables(text, results, COMMAND), encoding="utf-8")
    print(f"written: {target}")
    if off := [result for result in results if not result.passed]:
        print("\n".join(map(str, off)))
        raise SystemExit(1)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
