"""Measures what checksums cost: their share of the time of a save and of a resume, side by side in one run."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from unittest import mock

from scripts.benchmarks._rounds import spread, time_of
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

DESCRIPTION = """Saves and resumes a model several times with and without checksums, in turns. Prints their share of the
time: of a save (state, sync, rename), and of a resume (checks, engine, state). The files are in memory when they are
checked, as after a save: reading them from a disk takes longer, and is needed in any case."""

FLAGS = (
    Flag("framework", str, "torch", "twin", choices=("torch", "flax")),
    Flag("d_model", int, 512, "width of the model"),
    Flag("n_layers", int, 8, "its layers"),
    Flag("vocab_size", int, 8192, "its vocabulary"),
    Flag("repeats", int, 7, "rounds: a save with and one without checksums, and a resume; medians count"),
)


def run(invocation: Invocation) -> None:
    import importlib

    from slm_core.config import Config, Data, Model, Run
    from slm_core.hardware.devices import quiet_jax
    from slm_core.runs.checkpoints import LoopState, checkpoint_path, save_checkpoint
    from slm_core.runs.fingerprints import Identity
    from slm_core.runs.progress import Progress
    from slm_core.runs.whole import examine

    flags = invocation.flags
    for name in ("d_model", "n_layers", "vocab_size", "repeats"):
        if flags[name] < 1:
            raise UserError(f"--{name}={flags[name]} must be at least 1")
    quiet_jax()
    build = importlib.import_module(f"slm_{flags['framework']}.trainer").build
    model = Model(d_model=flags["d_model"], n_layers=flags["n_layers"])
    config = Config(model=model, data=Data(seq_len=64), run=Run(device="cpu"))
    engine = build(config, flags["vocab_size"], None)
    saves: dict[bool, list[float]] = {True: [], False: []}
    checks, resumes, identity = [], [], Identity("benchmark", "benchmark")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        root, loop = Path(folder), LoopState(progress=Progress(step=1))
        checkpoint = checkpoint_path(root, 1)

        def save() -> None:
            save_checkpoint(root, 1, engine.save, loop, 1, identity)

        def resume() -> None:
            build(config, flags["vocab_size"], None).restore(checkpoint / "state")

        for number in range(flags["repeats"]):
            for summed in (False, True) if number % 2 else (True, False):
                os.sync()  # so that no earlier write is paid for here
                with contextlib.nullcontext() if summed else _without_checksums():
                    saves[summed].append(time_of(save))
            save()  # the round may have ended with a save that has nothing to check
            checks.append(time_of(lambda: examine(checkpoint, identity)))
            resumes.append(time_of(resume))
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    longer = [after / before - 1 for after, before in zip(saves[True], saves[False], strict=True)]
    shares = [check / resume for check, resume in zip(checks, resumes, strict=True)]
    print(f"{flags['framework']}, checkpoint of {size / 1e6:,.0f} MB, {flags['repeats']} rounds, medians")
    before, after = median(saves[False]), median(saves[True])
    print(f"a save takes {before:.3f} s without checksums and {after:.3f} s with them: {spread(longer, '+')}")
    print(f"a resume takes {median(resumes):.3f} s and its checks {median(checks):.3f} s more: {spread(shares, '+')}")
    print(f"checked at {size / median(checks) / 1e9:.1f} GB/s")


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    with mock.patch("slm_core.manifest.file_sums", lambda folder: {}):
        yield


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
