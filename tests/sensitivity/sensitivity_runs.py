"""Observes a run: the loop's calls of the engine, and the files that it writes."""

import contextlib
import json
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sensitivity_cases import BASE

from parity.fields import choices
from slm_core.config import Config, Data
from slm_core.config.fields import with_values
from slm_core.data import save_tokenizer
from slm_core.data.sources import find_files
from slm_core.data.tokenizers import train_bpe
from slm_core.errors import UserError
from slm_core.model.weights import write_weights
from slm_core.runs.imported import describe_imported, make_imported
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics
from tests.core.fake_engine import BigramEngine
from tests.core.fake_trackers import install

DOCUMENTS = 60
TIMES = {"tokens_per_second", "peak_memory_bytes"}


class RecordingEngine(BigramEngine):
    """Records every call of the loop. It ignores the seed, so that an effect of the seed comes from the loop.

    It skips every update that may be in float16.
    """

    def __init__(self, config: Config, vocab_size: int):
        super().__init__(with_values(config, {"seed": 0}), vocab_size)

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict:
        self.calls.append((tokens.tolist(), lr))
        metrics = super().train_step(tokens, lr, step)
        skips = self.config.precision.compute in ("float16", "auto")
        return metrics | ({"skipped": 1.0, "loss_scale": 2.0} if skips else {})


def write_corpora(folder: Path) -> None:
    """Writes text for every source: two corpora with one text per source; a trained tokenizer; a base run."""
    for corpus in ("corpus", "other"):
        (folder / corpus).mkdir()
        for i in range(DOCUMENTS):
            (folder / corpus / f"{i}.txt").write_text(_document(corpus, "text", i))
            (folder / corpus / f"{i}.py").write_text(_document(corpus, "python", i))
        rows = list(_rows(corpus, "jsonl"))
        (folder / corpus / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        table = pyarrow.Table.from_pylist(list(_rows(corpus, "parquet")))
        pyarrow.parquet.write_table(table, folder / corpus / "rows.parquet")
    save_tokenizer(train_bpe([_document("corpus", "text", i) for i in range(DOCUMENTS)], 270), folder)
    write_weights(make_imported(folder / "base"), [("embed.weight", np.ones((300, 2)))])
    describe_imported(folder / "base", BASE, "torch", "base", 300, {})


def write_source(folder: Path) -> None:
    """Trains the run that others can continue."""
    (folder / "source").mkdir()
    with contextlib.chdir(folder / "source"):
        train(BASE, lambda config, vocab_size, weights: RecordingEngine(config, vocab_size), "torch")


def without_corpus(folder: Path) -> set[str]:
    """Returns the sources for which `write_corpora` wrote nothing."""
    missing = set()
    for source in choices("data.source"):
        if source == "task":  # it needs none
            continue
        try:
            find_files(Data(source=source, path=str(folder / "corpus")))
        except UserError:
            missing.add(source)
    return missing


def _document(*words: Any) -> str:
    return f"the {' '.join(map(str, words))} jumps over lazy dogs.\n" * 3


def _rows(*words: Any) -> Iterator[dict[str, str]]:
    for i in range(DOCUMENTS):
        yield {"text": _document(*words, i), "body": _document(*words, "body", i)}


class _Hub(list):
    """A streamed dataset."""

    def skip(self, count: int) -> "_Hub":
        return _Hub(self[count:])


def _load_dataset(path: str, name: str | None, streaming: bool) -> dict[str, _Hub]:
    return {"train": _Hub(_rows(path, name))}


@contextlib.contextmanager
def sources(folder: Path) -> Iterator[None]:
    """Makes `write_corpora`'s files the standard library; puts other libraries in place of a hub's and of trackers'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysconfig, "get_path", lambda name: str(folder / "corpus"))
        for tracker in set(choices("run.tracker")) - {"none"}:
            install(patch, tracker)
        patch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=_load_dataset))
        yield


def observe(config: Config, folder: Path) -> dict[str, Any]:
    """Runs a config twice in a new folder, as a user may; returns everything that a user can see, except times."""
    engines: list[RecordingEngine] = []

    def build(config: Config, vocab_size: int, weights: object) -> RecordingEngine:
        engines.append(RecordingEngine(config, vocab_size))
        engines[-1].calls.append((vocab_size, weights))
        return engines[-1]

    folder.mkdir()
    with contextlib.chdir(folder):
        for _ in range(2):
            try:
                train(config, build, "torch", weights_of=lambda base: str(base.folder))
            except UserError as error:
                engines[-1].calls.append(str(error))
        files = sorted(path for path in Path().rglob("*") if path.is_file() and "/." not in f"/{path}")
        return {
            "calls": [engine.calls for engine in engines],
            "files": [str(path.with_name("events") if path.name.startswith("events") else path) for path in files],
            "metrics": [_without_times(row) for path in files if path.suffix == ".jsonl" for row in read_metrics(path)],
            "samples": [path.read_text() for path in files if path.parent.name == "samples"],
        }


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMES}
