"""Writes docs/memory.md: the memory of presets with each memory setting in each twin, predicted and measured."""

import multiprocessing
import os

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file
from slm_core.errors import UserError

DESCRIPTION = """Predicts the memory of an update of presets and small models with every memory setting. Measures it
with PyTorch's MemTracker on fake tensors and with XLA's compiler, and writes the page and its picture. Takes minutes
and needs no GPU. Exits with 1 if a prediction is more than 10% off."""

FLAGS = [
    Flag("markdown", str, "docs/memory.md", "page to write; the picture is beside it"),
    Flag("workers", int, 2, "processes; each compiles one config at a time"),
]
WITHIN = 0.1


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    if flags["workers"] < 1:
        raise UserError(f"--workers={flags['workers']} must be at least 1")
    target = output_file("markdown", flags["markdown"], [".md"])
    from rich.progress import track

    from parity.memory_page import jobs, measure, page, pictured
    from slm_core.planner.report import picture

    os.environ |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    todo = jobs()
    with multiprocessing.get_context("spawn").Pool(flags["workers"], maxtasksperchild=4) as pool:
        rows = list(track(pool.imap(measure, todo), "measuring", len(todo)))
    target.write_text(page(rows, "uv run scripts/pages/memory.py"))
    picture(target.with_suffix(".png"), pictured(rows), 6e9)
    print(f"written: {target}, {target.with_suffix('.png')}")
    off = [row for row in rows if abs(row.ratio - 1) > WITHIN]
    for row in off:
        print(f"{row.subject} {row.setting} ({row.twin}): predicted is {row.ratio:.3f} of measured")
    if off:
        raise SystemExit(1)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
