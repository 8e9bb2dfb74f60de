"""Shows what is inside a checkpoint: of a run of either twin, or of a Hugging Face model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (gives NumPy the dtype bfloat16, which safetensors looks up by name)
import msgspec
import numpy as np

from slm_core.errors import UserError
from slm_core.hf.folder import safetensors_files
from slm_core.model.weights import Weights, open_safetensors, read_weights
from slm_core.runs.checkpoints import checkpoint_step, list_checkpoints, read_loop
from slm_core.runs.saved import SavedRun, load_run
from slm_core.runs.states import FILE, open_state, read_writer
from slm_core.runs.whole import check_whole

REMEDY = "copy it again"


class Entry(NamedTuple):
    """One array of a checkpoint.

    Args:
      norm: L2 norm, computed in float64; None of integers, which are counts or codes.
      value: of a single number; None of an array.
    """

    name: str
    dtype: str
    shape: list[int]
    norm: float | None
    value: float | None


class Contents(NamedTuple):
    """What a folder or a file holds.

    Args:
      facts: {what: it}, such as kind, framework, step and optimizer.
      arrays: by name; each is read when it is asked for.
    """

    facts: dict[str, Any]
    arrays: Weights

    def entries(self) -> Iterator[Entry]:
        """Yields each array's entry; one array is in memory at a time."""
        for name, array in self.arrays.items():
            yield _entry(name, array)


def _entry(name: str, array: np.ndarray) -> Entry:
    floating = array.dtype.kind not in "iub"
    wide = array.astype(np.float64) if floating or array.ndim == 0 else None
    norm = float(np.linalg.norm(wide.ravel())) if floating and wide is not None else None
    value = float(wide) if array.ndim == 0 and wide is not None else None
    return Entry(name, array.dtype.name, list(array.shape), norm, value)


def open_contents(path: Path) -> Contents:
    """Opens a run, one of its checkpoints, a Hugging Face folder, or a safetensors file.

    Raises:
      UserError: it is none of these, or it is damaged.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UserError(f"--show={path}: not a .safetensors file; give a run, a checkpoint or a model's folder")
        return Contents({"kind": "safetensors file", "files": 1}, open_safetensors([path], REMEDY))
    if not path.is_dir():
        raise UserError(f"--show={path}: no such file or folder; give a run, a checkpoint or a model's folder")
    for fits, opened in _KINDS:
        if fits(path):
            return opened(path)
    raise UserError(
        f"--show={path}: holds no checkpoint; give a run, a checkpoint of a run (checkpoints/step-NUMBER), a Hugging"
        " Face folder or a .safetensors file"
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _run(path: Path) -> Contents:
    return _saved(load_run(path))


def _checkpoint(path: Path) -> Contents:
    path = path.resolve()
    return _saved(load_run(path.parent.parent)._replace(checkpoint=path))


def _saved(saved: SavedRun) -> Contents:
    """Shows a checkpoint of a run."""
    check_whole(saved.checkpoint)
    config, loop = saved.config, read_loop(saved.checkpoint)
    facts = {
        "kind": "imported run" if saved.imported is not None else "run",
        "framework": saved.framework,
        "run": str(saved.folder),
        "checkpoint": str(saved.checkpoint),
        "step": checkpoint_step(saved.checkpoint),
        "data position": msgspec.to_builtins(loop.data),
        "optimizer": config.optim.kind,
        "seed": config.seed,
        "vocabulary": saved.vocab_size,
        "layers": config.model.n_layers,
        "width": config.model.d_model,
    }
    if saved.imported is not None:
        del facts["optimizer"], facts["data position"]
        return Contents(facts, read_weights(saved.checkpoint / "weights"))
    state = saved.checkpoint / "state"
    return Contents(facts | _written(state), open_state(state))


def _state(path: Path) -> Contents:
    return Contents({"kind": "state of a run"} | msgspec.to_builtins(read_writer(path)), open_state(path))


def _written(state: Path) -> dict[str, Any]:
    writer = read_writer(state)
    return {"written": f"{writer.framework}, {writer.device}, {writer.compute}"} if writer else {}


def _files(path: Path) -> list[Path]:
    if files := safetensors_files(path):
        return files
    raise UserError(f"{path} has no .safetensors file: name a run, a checkpoint or a folder with safetensors")


def _hugging_face(path: Path) -> Contents:
    values, files = _config(path), _files(path)
    values = values | values.get("text_config", {})
    names = ("model_type", "vocab_size", "num_hidden_layers", "hidden_size", "n_layer", "n_embd")
    facts = {"kind": "Hugging Face folder", "files": len(files)} | {n: values[n] for n in names if n in values}
    return Contents(facts, open_safetensors(files, REMEDY))


def _safetensors(path: Path) -> Contents:
    files = _files(path)
    return Contents({"kind": "folder of safetensors", "files": len(files)}, open_safetensors(files, REMEDY))


_KINDS = (
    (lambda path: path.resolve() in list_checkpoints(path.resolve().parent), _checkpoint),
    (lambda path: "framework" in _config(path), _run),
    (lambda path: (path / FILE).is_file(), _state),
    (lambda path: "model_type" in _config(path), _hugging_face),
    (lambda path: any(path.glob("*.safetensors")), _safetensors),
)
"""(whether a folder is of this kind, function that opens it), the first that fits."""


def table(contents: Contents) -> Iterator[str]:
    """Writes the contents as lines: the facts, then a column for each field of the entries, then the totals."""
    facts = {name: fact for name, fact in contents.facts.items() if fact is not None}
    width = max(map(len, facts))
    yield from (f"{name:{width}}  {fact}" for name, fact in facts.items())
    names = max(map(len, contents.arrays), default=4)
    yield f"{'name':{names}}  {'dtype':8}  {'shape':>16}  {'norm or value':>13}"
    count = size = 0
    for entry in contents.entries():
        numbers = int(np.prod(entry.shape))
        count, size = count + numbers, size + numbers * np.dtype(entry.dtype).itemsize
        number = entry.value if entry.value is not None else entry.norm
        shown = "" if number is None else f"{number:.6g}"
        shape = "x".join(map(str, entry.shape)) or "number"
        yield f"{entry.name:{names}}  {entry.dtype:8}  {shape:>16}  {shown:>13}"
    yield f"{len(contents.arrays)} arrays, {count:,} numbers, {size:,} bytes"


def as_json(contents: Contents) -> dict[str, Any]:
    """Returns the facts and the entries as one JSON object. A norm that is not finite is text: JSON has no NaN."""
    return {"facts": contents.facts, "arrays": [_row(entry) for entry in contents.entries()]}


def _row(entry: Entry) -> dict[str, Any]:
    broken = {n: str(v) for n, v in entry._asdict().items() if isinstance(v, float) and not np.isfinite(v)}
    return entry._asdict() | broken
