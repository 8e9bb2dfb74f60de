"""Reads and writes weights by canonical name, one at a time, so that no second copy of a model is in memory."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from slm_core.errors import UserError
from slm_core.files import machine_errors, sync, sync_tree

Weights = Mapping[str, np.ndarray]
"""{canonical name: array}. Each access may read the array from disk again."""

SHARD_BYTES = 64 * 2**20
Result = TypeVar("Result")


class Lazy(Mapping[str, np.ndarray]):
    """Weights whose arrays are read at each access.

    Args:
      readers: {name: function that returns the array}.
    """

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]):
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def write_weights(folder: Path, items: Iterable[tuple[str, np.ndarray]], shard_bytes: int = SHARD_BYTES) -> None:
    """Writes weights into a new folder, in order: weights-00001.safetensors, weights-00002.safetensors, ...

    The folder appears when all files are on the disk. One shard is in memory at a time.

    Args:
      folder: replaced if it exists; its parents are made.
      items: (canonical name, array).
      shard_bytes: a file is written once it has this many bytes.
    """
    temporary = folder.with_name(".tmp-" + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for number, shard in enumerate(shards(items, shard_bytes), 1):
        save_tensors(shard, temporary / f"weights-{number:05d}.safetensors")
    sync_tree(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync(folder.parent)


def save_tensors(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file.

    Raises:
      OSError: the machine refuses it, for example because the disk is full. The library's own error is none.
    """
    with machine_errors(path):
        save_file(arrays, path, metadata)


def shards(items: Iterable[tuple[str, np.ndarray]], shard_bytes: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields the items in shards; a shard is complete once it has `shard_bytes` bytes."""
    shard, size = {}, 0
    for name, array in items:
        shard[name] = np.asarray(array, order="C")
        size += array.nbytes
        if size >= shard_bytes:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def read_weights(folder: Path) -> Weights:
    """Opens the weights that `write_weights` wrote.

    Raises:
      UserError: the folder is missing or damaged.
    """
    files = sorted(folder.glob("weights-*.safetensors"))
    if [file.name for file in files] != [f"weights-{number:05d}.safetensors" for number in range(1, len(files) + 1)]:
        raise UserError(f"weights {folder}: a file before {files[-1].name} is missing; import the model again")
    if not files:
        raise UserError(f"weights {folder}: there are none; import the model again")
    return open_safetensors(files, "import the model again")


def open_safetensors(files: Iterable[Path], remedy: str) -> Weights:
    """Opens the arrays of several safetensors files as one mapping.

    Args:
      remedy: what to do about a file that cannot be read.

    Raises:
      UserError: a file is missing or damaged.
    """

    def attempt(file: Path, read: Callable[[Any], Result]) -> Result:
        try:
            with safe_open(file, framework="np") as opened:  # opened at each access: an open file stays in memory
                return read(opened)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file} cannot be read ({error}): {remedy}") from None

    def reader(file: Path, name: str) -> Callable[[], np.ndarray]:
        return lambda: attempt(file, lambda opened: opened.get_tensor(name))

    return Lazy({name: reader(file, name) for file in files for name in attempt(file, lambda opened: opened.keys())})


def checked(weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of the parameters of a model, in its order; checks each name and shape.

    Args:
      shapes: {canonical name: shape} of the model.

    Raises:
      UserError: a weight is missing, unknown or of another shape. Names are compared before any array is read.
    """
    known = {name: weights[name] for name in sorted(weights.keys() - shapes.keys())[:1]}
    missing = {name: shapes[name] for name in sorted(shapes.keys() - weights.keys())[:1]}
    check_state(known, missing)
    for name, shape in shapes.items():
        array = weights[name]
        check_state({name: array}, {name: shape})
        yield name, array


def check_state(state: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Checks names and shapes of an exported state before it is imported.

    Args:
      state: {name: array}.
      expected: {name: shape} of the engine that will take it.

    Raises:
      UserError: an entry is missing, unknown or of another shape; the error names the first.
    """
    for name in sorted(state.keys() | expected.keys()):
        array, expected_shape = state.get(name), expected.get(name)
        if array is None or array.shape != expected_shape:
            given = "absent" if array is None else list(array.shape)
            has = "no such entry" if expected_shape is None else list(expected_shape)
            raise UserError(
                f"state entry {name} is {given}, this model has {has}: use the config that the state was made with"
            )
