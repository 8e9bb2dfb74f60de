"""Compares optimizers on the same run: their losses, and the memory of their states."""

import functools
import importlib
import sys

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import PICTURES, output_file
from slm_core.errors import UserError, nearest

DESCRIPTION = """Trains the same model on the same batches with each optimizer, in one twin, and prints the final
losses, how far the smoothed losses are ever from those of the first optimizer, and the bytes of each optimizer's state.
Nothing is saved but the picture."""

FLAGS = [
    Flag("framework", str, "torch", "twin that trains", choices=("torch", "flax")),
    Flag("kinds", str, "adamw,adamw8bit", "optim.kind, with commas; the others are compared with the first"),
    Flag("steps", int, 1000, "updates; learning rates are those of a run of so many"),
    Flag("figure", str, "", "file for a picture of the losses, .png or .svg, such as docs/adamw8bit.png; empty: none"),
]


def run(invocation: Invocation) -> None:
    from slm_core.config.fields import field_table
    from slm_core.hardware.devices import spare_gpu

    flags = invocation.flags
    kinds = [kind.strip() for kind in flags["kinds"].split(",")]
    known = field_table()["optim.kind"].option.choices
    for kind in kinds:
        if kind not in known:
            raise UserError(f"--kinds={flags['kinds']}: there is no {kind!r}{nearest(kind, known)}")
    if flags["steps"] < 1:
        raise UserError(f"--steps={flags['steps']} must be at least 1")
    figure = output_file("figure", flags["figure"], PICTURES) if flags["figure"] else None
    spare_gpu(flags["framework"])
    from slm_core.studies.optimizers import draw, measure, table, with_optimizer

    configs = []
    for kind in kinds:
        config, notes = with_optimizer(invocation.config, kind, flags["steps"])
        configs.append(config)
        for note in notes:
            print(f"note: {kind}: {note}", file=sys.stderr)
    build = importlib.import_module(f"slm_{flags['framework']}.trainer").build
    loss_curves = [measure(config, build, functools.partial(print, flush=True)) for config in configs]
    print(f"\n{table(loss_curves)}")
    if figure:
        draw(loss_curves, f"{invocation.preset}, {flags['framework']}, {flags['steps']:,} updates", figure)
        print(f"written: {figure}")


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
