"""Makes a tiny run of a twin, and observes what is said about a damaged copy of it and what is used in its place.

As a script: `python -m tests.runs.observed TWIN FOLDER` makes the run and prints a row of JSON for each kind of damage.
"""

import contextlib
import importlib
import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from slm_core.config import Config, Data, Model, Optim, Run, Train
from slm_core.config.fields import with_values
from slm_core.data import prepare_text
from slm_core.data.dataset import TextDataset
from slm_core.errors import UserError
from slm_core.hf.importing import open_folder
from slm_core.hf.run import export_run, import_run
from slm_core.logging import say_once
from slm_core.runs.checkpoints import read_loop
from slm_core.runs.folder import open_run
from slm_core.runs.record import warn_of_damage
from slm_core.runs.saved import load_run
from slm_core.runs.verification import verify
from slm_core.runs.weights import run_weights
from slm_core.training.loop import train
from slm_core.training.metrics import Metrics
from tests.core.fake_engine import TEXT, BigramEngine
from tests.runs.damages import DATASET_KINDS, FILE_KINDS, LATEST_KINDS, METRICS_KINDS, RUN_KINDS, Kind

STEPS = 3


@dataclass(frozen=True)
class Observed:
    """What happened to something damaged.

    Args:
      verified: what scripts/verify.py lists as damaged.
      reported: what a command that uses it said, one line each.
      used: what it used instead, a checkpoint's name; "": nothing, the last line reported is an error.
    """

    verified: tuple[str, ...]
    reported: tuple[str, ...]
    used: str


def tiny(work: Path, **values: object) -> Config:
    """Returns the config of the run."""
    (work / "text.txt").write_text(TEXT)
    config = Config(
        model=Model(d_model=16, n_layers=1),
        data=Data(source="text", path=str(work / "text.txt"), split="tail", seq_len=8, dir=str(work / "data")),
        optim=Optim(warmup_steps=1),
        train=Train(steps=STEPS, batch_size=2, log_every=1, eval_every=3, eval_batches=1, checkpoint_every=1,
                    keep_checkpoints=3, sample_every=0),
        run=Run(dir=str(work / "models"), name="run", device="cpu", threads=1, tensorboard=False),
    )  # fmt: skip
    return with_values(config, dict(values))


def make_run(work: Path, framework: str) -> Path:
    """Trains a run with three checkpoints in `work`/models/run, and another one beside it, `other`."""
    train(tiny(work), importlib.import_module(f"slm_{framework}.trainer").build, framework)
    train(tiny(work, **{"seed": 1, "run.name": "other"}), BigramEngine, framework)
    return work / "models" / "run"


def make_foreign(run: Path) -> tuple[Path, Path]:
    """Exports a run to `exported` in its work folder, and imports that as the run `imported`; returns both."""
    saved, work = load_run(run), run.parent.parent
    items = lambda items, action: items  # noqa: E731
    export_run(saved, run_weights(saved), work / "exported", "", "float32", items)
    import_run(work / "exported", work / "models" / "imported", "torch", 0, items)
    return work / "exported", work / "models" / "imported"


@contextlib.contextmanager
def heard(lines: list[str]) -> Iterator[None]:
    """Collects what is said meanwhile, whether on stderr or as a warning. A UserError is the last line."""
    logger, handler, stream = logging.getLogger("lm-workbench"), logging.Handler(), io.StringIO()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.WARNING)  # a test before may have silenced all loggers
    say_once.cache_clear()
    try:
        with contextlib.redirect_stderr(stream):
            yield
    except UserError as error:
        assert "\n" not in str(error)
        lines.append(f"error: {error}")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        lines += stream.getvalue().splitlines()


def verified(path: Path) -> tuple[str, ...]:
    """Returns what scripts/verify.py lists as damaged."""
    try:
        return tuple(f"{finding.part}: {line}" for finding in verify(path) for line in finding.wrong)
    except UserError as error:
        return (f"error: {error}",)


def reading(run: Path) -> Observed:
    """Opens a run as sampling and evaluation do."""
    lines, used = [], ""
    with heard(lines):
        used = load_run(run).checkpoint.name
    return Observed(verified(run), tuple(lines), used)


def training(run: Path, config: Config) -> Observed:
    """Opens a run as training does, up to the engine; it repairs the run."""
    before, lines, used = verified(run), [], ""
    config = replace(config, run=replace(config.run, dir=str(run.parent)))
    dataset = prepare_text(config.data, progress=False)
    framework = json.loads((run.parent.parent / "framework").read_text())
    with heard(lines), open_run(config, framework, "default", (), dataset) as opened:
        if opened.checkpoint:
            loop = read_loop(opened.checkpoint)
            warn_of_damage(run, loop.lines)
            Metrics(run, loop.progress.step).close()
            used = opened.checkpoint.name
    return Observed(before, tuple(lines), used)


def opening(folder: Path, open_it: Callable[[Path], object]) -> Observed:
    """Opens a dataset or an exported folder."""
    lines, used = [], ""
    with heard(lines):
        open_it(folder)
        used = folder.name
    return Observed(verified(folder), tuple(lines), used)


class Copies:
    """Gives fresh copies of a folder; the name of its parent's parent is kept out of what is compared."""

    def __init__(self, work: Path, framework: str):
        self.work, self.framework, self.count = work, framework, 0

    def run(self) -> Path:
        """Copies the run, and what stands beside it, into a new work folder; returns the run."""
        work = self._new()
        shutil.copytree(self.work / "models" / "run", work / "models" / "run", symlinks=True)
        (work / "models" / "other").symlink_to(self.work / "models" / "other")
        (work / "framework").write_text(json.dumps(self.framework))
        return work / "models" / "run"

    def folder(self, path: Path) -> Path:
        """Copies any other folder."""
        return Path(shutil.copytree(path, self._new() / path.parent.name / path.name))

    def _new(self) -> Path:
        self.count += 1
        path = self.work / "copies" / str(self.count)
        path.mkdir(parents=True)
        return path


def files_of(folder: Path) -> list[str]:
    """Lists the files of a folder by their paths inside it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run_damages(run: Path) -> Iterator[tuple[str, str, Kind]]:
    """Yields (place, kind, what does it to the run) of every damage of a run."""
    newest = f"checkpoints/step-{STEPS:08d}"
    places = [f"{newest}/{name}" for name in files_of(run / newest)] + ["config.json"]
    places += [f"tokenizer/{name}" for name in files_of(run / "tokenizer")]
    for place in places:
        for kind, damage in FILE_KINDS.items():
            yield place, kind, lambda folder, damage=damage, place=place: damage(folder / place)
    for kind, damage in (RUN_KINDS | LATEST_KINDS | METRICS_KINDS).items():
        yield "", kind, damage


def dataset_damages(dataset: Path) -> Iterator[tuple[str, str, Kind]]:
    """Yields the same of every damage of a prepared dataset."""
    yield from file_damages(dataset)
    for kind, damage in DATASET_KINDS.items():
        yield "", kind, damage


def file_damages(folder: Path) -> Iterator[tuple[str, str, Kind]]:
    """Yields the same of every file of a folder."""
    for place in files_of(folder):
        for kind, damage in FILE_KINDS.items():
            yield place, kind, lambda path, damage=damage, place=place: damage(path / place)


def rows(work: Path, framework: str) -> Iterator[dict[str, str]]:
    """Does every damage to a copy of what `make_run` made. Yields a row of docs/damage.md for each."""
    run, copies = work / "models" / "run", Copies(work, framework)
    dataset = next((work / "data").glob("text-*"))

    def row(what: str, place: str, kind: str, seen: Observed, used: str) -> dict[str, str]:
        said = [line for line in seen.reported or seen.verified if ", renamed to " not in line]
        text = re.sub(rf"{re.escape(str(work))}/copies/[0-9]+/", "", "; ".join(said))
        return {"what": what, "place": place, "kind": kind, "reported": text, "used": used}

    for place, kind, damage in run_damages(run):
        copy = copies.run()
        damage(copy)
        seen = training(copy, tiny(work))
        yield row("run", place, kind, seen, seen.used or "nothing")
    if framework == "flax":
        return
    exported, imported = make_foreign(run)
    for what, folder, open_it in (
        ("import", imported, load_run),
        ("export", exported, open_folder),
        ("dataset", dataset, TextDataset),
    ):
        for place, kind, damage in dataset_damages(folder) if what == "dataset" else file_damages(folder):
            copy = copies.folder(folder)
            damage(copy)
            seen = opening(copy, open_it)
            yield row(what, place, kind, seen, "the folder" if seen.used else "nothing")


if __name__ == "__main__":
    work = Path(sys.argv[2])
    with contextlib.redirect_stdout(sys.stderr):
        make_run(work, sys.argv[1])
    for each in rows(work, sys.argv[1]):
        print(json.dumps(each))
