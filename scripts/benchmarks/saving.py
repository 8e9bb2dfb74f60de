"""Measures how long a checkpoint stops training, beside the time that the checkpoint takes."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from scripts.benchmarks._rounds import spread, time_of
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

DESCRIPTION = """Saves a model several times while training waits, and while it goes on, in turns. Prints the time of a
whole save (check of the parameters, state, checksums, sync, rename), the time that training stops if the checkpoint is
written beside it (check, copy of the state), and their ratio. Then trains while a checkpoint is written, and without,
in turns, and prints the ratio of both speeds. The sizes are about 100M parameters by default."""

FLAGS = (
    Flag("framework", str, "torch", "twin", choices=("torch", "flax")),
    Flag("d_model", int, 768, "width of the model"),
    Flag("n_layers", int, 12, "its layers"),
    Flag("vocab_size", int, 20480, "its vocabulary"),
    Flag("seq_len", int, 64, "tokens per update"),
    Flag("repeats", int, 7, "rounds, of which medians count; one more comes before them and does not count"),
)


def run(invocation: Invocation) -> None:
    import importlib

    import numpy as np

    from slm_core.config import Config, Data, Model, Run, Train
    from slm_core.hardware.devices import quiet_jax
    from slm_core.runs.checkpoints import LoopState
    from slm_core.runs.fingerprints import Identity
    from slm_core.runs.progress import Progress
    from slm_core.training.saving import Saver

    flags = invocation.flags
    for name in ("d_model", "n_layers", "vocab_size", "seq_len", "repeats"):
        if flags[name] < 1:
            raise UserError(f"--{name}={flags[name]} must be at least 1")
    quiet_jax()
    build = importlib.import_module(f"slm_{flags['framework']}.trainer").build
    model = Model(d_model=flags["d_model"], n_layers=flags["n_layers"])
    data, train = Data(seq_len=flags["seq_len"]), Train(batch_size=1)
    engine = build(Config(model=model, data=data, train=train, run=Run(device="cpu")), flags["vocab_size"], None)
    tokens = np.random.default_rng(0).integers(0, flags["vocab_size"], (1, flags["seq_len"] + 1)).astype(np.int32)
    done = 0

    def update() -> None:
        nonlocal done
        engine.fetch(engine.train_step(tokens, 1e-4, done))
        done += 1

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        saver = Saver(engine, Path(folder), 1, Identity("benchmark", "benchmark"))

        def save(beside: bool) -> None:
            checks.append(time_of(engine.non_finite_parameter))
            saver.save(LoopState(progress=Progress(step=done)), lambda: None, beside)

        for _ in range(2):
            update()  # compiles
        stalls, whole, speeds, checks = [], [], [], []
        for number in range(flags["repeats"] + 1):
            for beside in (True, False) if number % 2 else (False, True):
                os.sync()  # so that no earlier write is paid for here
                (stalls if beside else whole).append(time_of(lambda beside=beside: save(beside)))
                saver.wait()
                update()  # the state that is saved next is another one
            os.sync()
            speeds.append(_speeds(update, lambda: save(True), lambda: saver.under_way, bool(number % 2)))
            saver.wait()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    stalls, whole, speeds = stalls[1:], whole[1:], speeds[1:]
    shares = [stall / save for stall, save in zip(stalls, whole, strict=True)]
    beside, alone = ([pair[i] for pair in speeds] for i in (0, 1))
    kept = [a / b for a, b in speeds]
    count = sum(array.size for name, array in engine.export_state().items() if name.startswith("params/"))
    print(
        f"{flags['framework']}, {count:,} parameters, checkpoint of {size / 1e6:,.0f} MB, {len(whole)} rounds, medians"
    )
    print(f"a whole save takes {median(whole):.3f} s")
    print(f"training stops for {median(stalls):.3f} s: {spread(shares)} of the save")
    print(f"of both, {median(checks):.3f} s check that the parameters are finite")
    print(f"updates per second: {median(beside):.3f} beside a save, {median(alone):.3f} alone: {spread(kept)}")


def _speeds(
    update: Callable[[], None], save: Callable[[], None], under_way: Callable[[], bool], beside_first: bool
) -> tuple[float, float]:
    """Measures the updates per second while a checkpoint is written, without the stall, and of as many without one."""

    def beside() -> tuple[int, float]:
        save()
        count, start = 0, time.perf_counter()
        while under_way() or not count:
            update()
            count += 1
        return count, time.perf_counter() - start

    def alone(count: int) -> float:
        return time_of(lambda: [update() for _ in range(count)])

    before = alone(3) / 3 if not beside_first else None
    count, seconds = beside()
    return count / seconds, 1 / (before or alone(count) / count)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
