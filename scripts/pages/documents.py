"""Writes the table of docs/studies/documents.md: what keeping documents apart changes when documents are short."""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from scripts.pages._marked import marked_page, write_measured
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """Makes a document of every function of Python's standard library. Trains on them with and without
data.document_mask, and with both values of data.packing. Evaluates every run on the same text, once with its documents
kept apart and once without, and writes the table between the two marks of the page. Each run has one thread.
Takes half an hour on 2 cores; a second call goes on where the first one stopped."""

FLAGS = [
    Flag("markdown", str, "docs/studies/documents.md", "page whose table is written anew"),
    Flag("folder", str, "models/documents", "folder of the documents and of the runs"),
    Flag("seeds", int, 5, "runs of each variant"),
    Flag("jobs", int, os.cpu_count() or 1, "runs at a time"),
]

VARIANTS: dict[str, dict[str, Any]] = {
    "neither": {},
    "kept apart": {"data.document_mask": True},
    "packed": {"data.packing": "documents"},
    "packed and kept apart": {"data.document_mask": True, "data.packing": "documents"},
}
"""{name: fields}. The first is the baseline."""

SETTINGS: dict[str, Any] = {
    "data.source": "jsonl", "data.tokenizer": "bpe", "data.vocab_size": 1024, "data.seq_len": 256,
    "model.n_layers": 4, "train.batch_size": 8, "train.steps": 300, "train.sample_every": 0, "run.tensorboard": False,
    "run.threads": 1, "run.device": "cpu",
}  # fmt: skip


class Job(NamedTuple):
    """One run: a variant with a seed."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant.replace(' ', '-')}-{self.seed}"


class Losses(NamedTuple):
    """Nats per token of one run on the validation text, by how it is read."""

    apart: float
    whole: float


def functions() -> Iterator[str]:
    """Yields the source of every function of the standard library, without its tests, in the order of the files."""
    from slm_core.config import Data
    from slm_core.data.source_files import standard_library

    for entry in standard_library(Data()):
        text = Path(entry.path).read_text(encoding="utf-8", errors="replace")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_source_segment(text, node, padded=True) or ""


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    page, folder = marked_page(flags["markdown"]), Path(flags["folder"])
    for name, least in (("seeds", 2), ("jobs", 1)):
        if flags[name] < least:
            raise UserError(f"--{name}={flags[name]} must be at least {least}")
    from slm_core.logging import say
    from slm_core.studies.runner import training_commands

    command, corpus = training_commands(ROOT, sys.executable)["torch"], _corpus(folder)
    todo = [Job(variant, seed) for seed in range(flags["seeds"]) for variant in VARIANTS]
    losses = {}
    with ThreadPoolExecutor(flags["jobs"]) as pool:
        for job, found in zip(todo, pool.map(lambda job: _measure(command, job, folder, corpus), todo), strict=True):
            losses[job] = found
            say(f"{len(losses)}/{len(todo)} runs: {job.name}: apart {found.apart:.4f}, whole {found.whole:.4f}")
    write_measured(page, _table(losses))


def _corpus(folder: Path) -> Path:
    """Writes the documents as JSON lines, unless they are there."""
    from slm_core.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "functions.jsonl"
    if not file.is_file():
        write_atomically(file, "".join(json.dumps({"text": text}) + "\n" for text in functions()))
    return file


def _measure(command: list[str], job: Job, folder: Path, corpus: Path) -> Losses:
    from slm_core.studies.runner import train_once

    place = {"run.dir": str(folder), "run.name": job.name, "seed": job.seed, "data.path": str(corpus)}
    train_once(command, SETTINGS | place | VARIANTS[job.variant])
    return Losses(_loss(folder / job.name, "--document_mask"), _loss(folder / job.name, "--nodocument_mask"))


def _loss(run_folder: Path, rule: str) -> float:
    """Evaluates a run on its validation text, and returns nats per token."""
    with tempfile.TemporaryDirectory() as temporary:
        lines = Path(temporary, "loss.jsonl")
        command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), f"--run={run_folder}", rule]
        done = subprocess.run(
            [*command, "--batches=100", "--device=cpu", f"--json={lines}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise UserError(f"{run_folder}: it was not evaluated: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return json.loads(lines.read_text(encoding="utf-8"))["loss"]


def _table(losses: Mapping[Job, Losses]) -> str:
    from slm_core.studies.tables import markdown_table

    seeds = sorted({job.seed for job in losses})
    rows = []
    for variant in VARIANTS:
        row = [variant]
        for rule in Losses._fields:
            values = {seed: getattr(losses[Job(variant, seed)], rule) for seed in seeds}
            base = {seed: getattr(losses[Job(next(iter(VARIANTS)), seed)], rule) for seed in seeds}
            row += [f"{sum(values.values()) / len(seeds):.4f}", _difference(values, base)]
        rows.append(row)
    titles = ("trained", "read apart", "difference", "read whole", "difference")
    return markdown_table(titles, rows)


def _difference(values: Mapping[int, float], base: Mapping[int, float]) -> str:
    """Says the mean difference per seed, its 95% interval and its p value; "" for the baseline itself."""
    from slm_core.studies.statistics import paired

    if values == base:
        return ""
    found = paired({seed: values[seed] - base[seed] for seed in values})
    return f"{found.mean:+.4f} ± {found.high - found.mean:.4f} (p = {found.p_t:.2g})"


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
