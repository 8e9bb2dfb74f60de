"""Measures training speed: both twins in any config, or beside other libraries that do the same work."""

import dataclasses
import functools
import json
import os
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError
from slm_core.studies.throughput import Contender, Contest, Measurement, compare, table

DESCRIPTION = """Measures training speed in tokens per second: contenders take turns in short rounds, each in its own
process. Without --config: 6 layers, 384 wide, 6 heads, context 256, batch 8, bytes, float32, on the CPU, in both twins
with both attention kernels. With --config: that config in both twins. With --peers: the default preset, or what each
peer has nearest to it, in both twins and the peers, in float32 on the CPU; fields of size can be set beside it."""

FLAGS = [
    Flag(
        "peers",
        str,
        "",
        "other libraries, with commas between them: transformers, litgpt, x-transformers (uv sync --group peers); or"
        " nanogpt=FOLDER, nanochat=FOLDER, nanodo=FOLDER, where each folder is your checkout",
    ),
    Flag("rounds", int, 7, "turns of each contender"),
    Flag("updates", int, 10, "updates per turn"),
    Flag("json", str, "", "file for all numbers, as JSON"),
]


def torch_twin(config):
    from slm_core.studies.twin_trainee import TwinTrainee
    from slm_torch.trainer import build

    return TwinTrainee(config, build)


def flax_twin(config):
    from slm_core.studies.twin_trainee import TwinTrainee
    from slm_flax.trainer import build

    return TwinTrainee(config, build)


TWINS = {"PyTorch twin": torch_twin, "Flax twin": flax_twin}


def setting(kernel: str):
    """Makes the setting of docs/benchmarks.md, a GPT-2 without biases."""
    from slm_core.config import (
        Attention,
        Config,
        Data,
        Mlp,
        Model,
        Norm,
        Optim,
        Position,
        Precision,
        Run,
        Train,
    )

    return Config(
        model=Model(
            d_model=384,
            n_layers=6,
            attention=Attention(n_heads=6, kernel=kernel),
            position=Position(kind="learned"),
            norm=Norm(kind="layernorm"),
            mlp=Mlp(kind="gelu"),
        ),
        data=Data(seq_len=256),
        optim=Optim(
            lr=1e-3,
            decay_embeddings=True,
            clip_norm=1.0,
            schedule="cosine",
            warmup_steps=10,
        ),
        train=Train(steps=10_000, batch_size=8),
        precision=Precision(compute="float32"),
        run=Run(device="cpu"),
    )


def contests(invocation: Invocation) -> list[Contest]:
    """Lists what is measured, one contest after another."""
    if peers := invocation.flags["peers"]:
        from scripts.benchmarks import _peers

        return _peers.contests(_peers.parse(peers), invocation.config, TWINS)
    if invocation.config_given or invocation.overrides:
        return [_over_last(invocation.preset, [Contender(n, make, invocation.config) for n, make in TWINS.items()])]
    contenders = [
        Contender(f"{name}, {kernel}", make, setting(kernel))
        for name, make in TWINS.items()
        for kernel in ("fused", "dot_product")
    ]
    return [_over_last("twins and kernels", contenders)]


def _over_last(title: str, contenders: list[Contender]) -> Contest:
    return Contest(title, contenders, references=[contenders[-1].name])


def run(invocation: Invocation) -> None:
    from slm_core import data
    from slm_core.hardware.devices import quiet_jax
    from slm_core.studies.machine import machine

    flags = invocation.flags
    for name in ("rounds", "updates"):
        if flags[name] < 1:
            raise UserError(f"--{name}={flags[name]} must be at least 1")
    quiet_jax()
    print(machine(), flush=True)
    if os.getloadavg()[0] > 0.5:
        print(
            "note: something else is running on this machine; trust the ratios more than the speeds",
            flush=True,
        )
    results = {}
    for contest in contests(invocation):
        data.prepare(contest.contenders[0].config.data)
        print(f"\n{contest.title}", flush=True)
        measured = compare(
            contest.contenders,
            flags["rounds"],
            flags["updates"],
            functools.partial(print, flush=True),
        )
        print(f"\n{table(measured, contest.references)}", flush=True)
        for note in contest.notes:
            print(f"note: {note}", flush=True)
        _check_equal_work(measured)
        results[contest.title] = [dataclasses.asdict(m) for m in measured]
    if flags["json"]:
        Path(flags["json"]).write_text(json.dumps({"machine": machine(), "contests": results}, indent=1) + "\n")


def _check_equal_work(measured: list[Measurement]) -> None:
    """Prints a warning if contenders did not do the same work, or did not learn."""
    if len({m.parameters for m in measured}) > 1:
        print(
            "note: parameter counts differ, so these speeds are not of the same work",
            flush=True,
        )
    for m in measured:
        if not m.last_loss < m.first_loss:
            print(f"note: the loss of {m.name} did not fall", flush=True)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
