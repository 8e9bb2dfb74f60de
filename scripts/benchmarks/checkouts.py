"""Compares the training speed of this checkout with that of another one, such as a worktree of an earlier commit."""

import statistics
import subprocess
import tempfile
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("train.eval_every=0", "train.sample_every=0", "train.checkpoint_every=0", "train.eval_batches=1")
"""Settings of each run: it trains, and does nothing beside it until its last update."""

DESCRIPTION = """Compares training speed between two checkouts: here and --other take turns, a process per run, each
in its own environment. Every second round begins with this one, for a machine that grows warm grows slow. Prints tokens
per second, the ratios of each round, and whether the losses are equal. Make the other one by
`git worktree add ../before COMMIT`."""

FLAGS = [
    Flag("other", str, "", "folder of the other checkout", required=True),
    Flag("framework", str, "both", "twin to measure", choices=("both", "torch", "flax")),
    Flag("preset", str, "configs/default.py", "preset to train; both checkouts must have it"),
    Flag("steps", int, 160, "updates per run"),
    Flag("rounds", int, 3, "runs of each checkout in each twin"),
]


def run(invocation: Invocation) -> None:
    from slm_core.studies.machine import machine
    from slm_core.studies.tables import markdown_table

    flags = invocation.flags
    other = Path(flags["other"]).resolve()
    if not (other / "scripts" / "train_torch.py").is_file():
        raise UserError(f"--other={flags['other']}: it is not a checkout of this project; give one's folder")
    if flags["rounds"] < 1 or flags["steps"] < 60:
        raise UserError("--rounds must be at least 1, and --steps at least 60, of which 50 are warm-up")
    print(machine(), flush=True)
    rows = []
    for framework in ("torch", "flax") if flags["framework"] == "both" else (flags["framework"],):
        rounds = [_round(framework, (other, ROOT), flags, i % 2) for i in range(flags["rounds"])]
        (there, here), losses = zip(*(speeds for speeds, _ in rounds), strict=True), [equal for _, equal in rounds]
        ratios = [new / old for old, new in zip(there, here, strict=True)]
        best = f"{max(there):,.0f}", f"{max(here):,.0f}", f"{max(here) / max(there):.3f}"
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        rows.append([framework, *best, spread, "equal" if all(losses) else "differ"])
    head = ["twin", "other, best tokens/s", "here, best tokens/s", "best over best", "ratio by round", "losses"]
    print(f"\n{markdown_table(head, rows)}")


def _round(framework: str, checkouts: tuple[Path, Path], flags: dict, first: int) -> tuple[list[float], bool]:
    """Trains once in each checkout. Returns their tokens per second, and whether their losses are equal.

    Args:
      first: which checkout trains first, 0 or 1.
    """
    from slm_core.training.metrics import read_metrics

    speeds, losses = [0.0, 0.0], [[], []]
    for which in (first, 1 - first):
        checkout = checkouts[which]
        with tempfile.TemporaryDirectory() as folder:
            settings = (f"train.steps={flags['steps']}", f"run.dir={folder}", "run.name=run", *OPTIONS)
            command = ["uv", "run", f"scripts/train_{framework}.py", f"--config={flags['preset']}"]
            done = subprocess.run(
                [*command, *(f"--config.{setting}" for setting in settings)],
                cwd=checkout, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise UserError(f"{checkout}: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
            lines = [row for row in read_metrics(Path(folder) / "run" / "metrics.jsonl") if row["split"] == "train"]
        speeds[which] = statistics.median(row["tokens_per_second"] for row in lines[2:])  # the first ones warm up
        losses[which] = [row["loss"] for row in lines]
        print(f"{framework}, {checkout.name}: {speeds[which]:,.0f} tokens/s", flush=True)
    return speeds, losses[0] == losses[1]


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
