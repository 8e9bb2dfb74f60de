"""The folder of a run: its name, its config.json, its lock, and who may continue it."""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from slm_core.config import Config
from slm_core.config.conversion import from_config_dict
from slm_core.config.fields import flatten
from slm_core.errors import UserError, nearest
from slm_core.files import sync_tree, write_atomically
from slm_core.runs.checkpoints import checkpoint_path, latest_checkpoint, publish_weights, repair
from slm_core.runs.provenance import commit, versions

MAY_DIFFER = (
    "run.", "data.dir", "train.checkpoint_every", "train.keep_checkpoints", "train.sample_", "memory.limit_gb",
)  # fmt: skip
"""Prefixes of the fields that a resumed run may change: they alter neither the weights nor a line of metrics.jsonl."""

IMPORTED = "imported"
"""Stands for the fingerprint of the data that an imported model was trained on."""

_BEFORE_CONFIG = {".lock", "tokenizer", "config.json.tmp"}  # what a run that died while being created leaves


class SavedRun(NamedTuple):
    """What a run folder says of itself."""

    config: Config
    framework: str  # the twin that trained it: "torch" or "flax"
    folder: Path
    checkpoint: Path  # the latest; checkpoint / "state" is for the engine, of an imported run checkpoint / "weights"
    vocab_size: int
    fingerprint: str  # of the prepared data; IMPORTED
    imported: dict[str, Any] | None = None  # where an imported run's weights are from; None: it was trained here
    tokens: dict[str, Any] | None = None  # {"eos_token_id": ...} of a model from elsewhere, and of what started from it


def automatic_name(config: Config, framework: str, preset: str, overrides: Iterable[str] = ()) -> str:
    """Returns "<preset>-<framework>", and "-<6 hex digits>" of the overrides that shape the run, if there are any.

    Args:
      overrides: dotted names of the fields set on the command line; those of MAY_DIFFER are where and how, not what.
    """
    values = flatten(config)
    shaping = {name: values[name] for name in sorted(overrides) if not name.startswith(MAY_DIFFER)}
    name = f"{preset}-{framework}"
    if shaping:
        name += "-" + hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:6]
    return name


class RunFolder:
    """An open run: this process alone may write to it until `close`. Use it in a `with`.

    `resolved`: {field: value} of what the run's first process resolved on its device; None: nothing was recorded yet.
    """

    def __init__(self, path: Path, lock: int, resolved: dict[str, Any] | None = None):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.resolved = resolved
        self._lock = lock

    def record(self, resolved: dict[str, Any]) -> None:
        """Writes what was resolved into config.json, so that a resumed run computes the same."""
        self.resolved = resolved
        description = json.loads((self.path / "config.json").read_text()) | {"resolved": resolved}
        write_atomically(self.path / "config.json", json.dumps(description, indent=2) + "\n")

    def save_sample(self, step: int, text: str) -> None:
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"step-{step:08d}.txt").write_text(text, encoding="utf-8")

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_run(
    config: Config, framework: str, preset: str, overrides: Iterable[str], dataset: Any, base: SavedRun | None = None
) -> RunFolder:
    """Creates the run's folder, or opens the one that is there to continue it, and locks it.

    A run that has no checkpoint yet starts over, whatever its config was. With `run.resume` off, an existing name gets
    the next free "-2", "-3", ...

    Args:
      dataset: the prepared data: `fingerprint`, `vocab_size`, `tokenizer`.
      base: the run whose weights it starts from, if any: its vocabulary and special tokens become this run's.

    Raises:
      UserError: the folder is no run, another process trains in it, or the run in it is a different one.
    """
    name = config.run.name or automatic_name(config, framework, preset, overrides)
    if name != Path(name).name or name.startswith("."):
        raise UserError(f"run.name={name!r}: must be a plain name of a folder; its parent is run.dir")
    path = _make(Path(config.run.dir), name, config.run.resume)
    lock = _acquire(path)
    try:
        _refuse_foreign(path)
        repair(path / "checkpoints")
        resolved = None
        if latest_checkpoint(path / "checkpoints"):
            _refuse_different(path, config, framework, dataset.fingerprint)
            resolved = _read(path)["resolved"]
        else:
            _describe(path, config, framework, preset, dataset, base)
    except BaseException:
        os.close(lock)
        raise
    return RunFolder(path, lock, resolved)


def _make(root: Path, name: str, resume: bool) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1_000_000):
            path = root / (name if number == 1 else f"{name}-{number}")
            if resume:
                path.mkdir(exist_ok=True)
                return path
            try:
                path.mkdir()  # not "is it free?" first: two processes may ask at once
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise UserError(f"run.dir={str(root)!r}: cannot make {error.filename} ({error.strerror})") from error
    raise UserError(f"run.name={name!r}: a million runs have this name; choose another")


def _acquire(path: Path) -> int:
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UserError(
            f"run.name={path.name!r}: another process is training in {path}; wait for it, or choose another run.name"
        ) from error
    return lock


def _refuse_foreign(path: Path) -> None:
    if (path / "config.json").exists():
        return
    foreign = sorted({entry.name for entry in path.iterdir()} - _BEFORE_CONFIG)
    if foreign:
        raise UserError(
            f"run.name={path.name!r}: {path} is not a run (it holds {foreign[0]} and no config.json); choose another"
        )


def _describe(path: Path, config: Config, framework: str, preset: str, dataset: Any, base: SavedRun | None) -> None:
    """Writes what makes the folder a run; config.json last, for it says that the rest is there."""
    from slm_core.data import save_tokenizer

    shutil.rmtree(path / "tokenizer", ignore_errors=True)  # of an attempt that never reached a checkpoint
    if base and (base.folder / "tokenizer" / "kind.json").is_file():
        shutil.copytree(base.folder / "tokenizer", path / "tokenizer")  # the same, with what an export goes on to need
    save_tokenizer(dataset.tokenizer, path / "tokenizer")
    sync_tree(path / "tokenizer")
    vocab_size, more = (base.vocab_size, {"tokens": base.tokens}) if base else (dataset.vocab_size, {})
    _write_config(path, config, framework, preset, dataset.fingerprint, vocab_size, **more)


def _write_config(
    path: Path, config: Config, framework: str, preset: str, fingerprint: str, vocab_size: int, **more: Any
) -> None:
    description = {
        "framework": framework,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "data": {"fingerprint": fingerprint, "vocab_size": vocab_size},
        "versions": versions(),
        "commit": commit(),
        **more,
    }
    write_atomically(path / "config.json", json.dumps(description, indent=2) + "\n")


def make_imported(path: Path) -> Path:
    """Makes the folder of a run whose weights come from elsewhere. What an unfinished import left there is removed.

    Returns:
      The folder for `slm_core.model.weights.write_weights`; `describe_imported` then completes the run.

    Raises:
      UserError: something else is there already, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror}); choose another folder") from error
    foreign = sorted({entry.name for entry in path.iterdir()} - _BEFORE_CONFIG - {"checkpoints"})
    if foreign:
        raise UserError(f"{path}: already holds {foreign[0]}; choose another name, or delete that folder")
    for unfinished in ("tokenizer", "checkpoints"):
        shutil.rmtree(path / unfinished, ignore_errors=True)
    return checkpoint_path(path / "checkpoints", 0) / "weights"


def describe_imported(
    path: Path, config: Config, framework: str, preset: str, vocab_size: int, extra: dict[str, Any]
) -> None:
    """Completes the folder of `make_imported`, whose weights and tokenizer are written: checkpoint 0, then config.json.

    Args:
      framework: the twin that computes where a command names none.
      preset: what the model is called, as a trained run's preset.
      extra: where it came from, JSON; "eos_token_id" (int, list or None) ends a generated text.
    """
    if (path / "tokenizer").is_dir():
        sync_tree(path / "tokenizer")
    publish_weights(path / "checkpoints", 0)
    _write_config(path, config, framework, preset, IMPORTED, vocab_size, imported=extra)


def _read(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads((folder / "config.json").read_text())
        saved["config"] = from_config_dict(saved["config"])
        known = {name: saved[name] for name in ("framework", "config")}
        known |= {name: saved.get(name) for name in ("imported", "resolved", "tokens")}
        return known | saved["data"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not a run: it has no config.json{_neighbour(folder)}") from error
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}: broken ({error!r}); restore the file or train anew") from error


def _neighbour(folder: Path) -> str:
    runs = [path.parent.name for path in folder.parent.glob("*/config.json")]
    if not runs:
        return f"; there are no runs in {folder.parent}"
    return nearest(folder.name, runs) or f"; runs in {folder.parent}: {', '.join(sorted(runs)[:5])}"


def _refuse_different(path: Path, config: Config, framework: str, fingerprint: str) -> None:
    saved = _read(path)
    if saved["imported"] is not None:
        raise UserError(
            f"run.name={path.name!r}: {path} is an imported model, which training never writes into; to start from it:"
            f" --config=configs/finetune.py:{path}, and another run.name"
        )
    anew = "start a new run with --config.run.resume=False, or another --config.run.name"
    if saved["framework"] != framework:
        raise UserError(
            f"run.name={path.name!r}: {path} was trained by the {saved['framework']} twin (now {framework}); "
            "choose another run.name"
        )
    before, now = flatten(saved["config"]), flatten(config)
    differing = [name for name in now if before[name] != now[name] and not name.startswith(MAY_DIFFER)]
    if differing:
        shown = ", ".join(f"{name}={before[name]!r} (now {now[name]!r})" for name in differing[:4])
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise UserError(f"{differing[0]}: {path} was begun with {shown}{more}; go on with its values, or {anew}")
    if saved["fingerprint"] != fingerprint:
        raise UserError(
            f"data.source={config.data.source!r}: the text changed since {path} was begun (fingerprint "
            f"{saved['fingerprint']}, now {fingerprint}); put the old text back, or {anew}"
        )


def load_run(path: Path | str) -> SavedRun:
    """Reads a run folder and finds its latest checkpoint, for generating text or continuing elsewhere.

    Raises:
      UserError: there is no such run, it is broken, or it has no checkpoint yet.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run{_neighbour(folder)}")
    saved = _read(folder)
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        raise UserError(f"{folder}: has no checkpoint yet; train it to its first one (train.checkpoint_every)")
    try:
        size, fingerprint, imported = saved["vocab_size"], saved["fingerprint"], saved["imported"]
        tokens = saved["tokens"] or {n: v for n, v in (imported or {}).items() if n.endswith("_token_id")}
        return SavedRun(saved["config"], saved["framework"], folder, checkpoint, size, fingerprint, imported, tokens)
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'}: broken (no data.{error.args[0]}); train anew") from error
