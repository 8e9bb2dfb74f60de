"""Weights by canonical name: read one at a time, written in shards, so that memory never holds them twice."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from slm_core.errors import UserError
from slm_core.files import sync, sync_tree

Weights = Mapping[str, np.ndarray]
"""{canonical name: array}. An array may be read only when it is asked for, and anew each time."""

SHARD_BYTES = 64 * 2**20
Result = TypeVar("Result")


class Lazy(Mapping[str, np.ndarray]):
    """Weights whose arrays are read when they are asked for.

    Args:
      readers: {name: what returns the array}.
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
    """Writes weights into a new folder as they come: weights-00001.safetensors, weights-00002.safetensors, ...

    The folder appears when all of them are on the disk. Memory holds one shard.

    Args:
      folder: replaced where it is there; its parents are made.
      items: (canonical name, array).
      shard_bytes: a file is written once it has this many bytes.
    """
    temporary = folder.with_name(".tmp-" + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for number, shard in enumerate(shards(items, shard_bytes), 1):
        save_file(shard, temporary / f"weights-{number:05d}.safetensors")
    sync_tree(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync(folder.parent)


def shards(items: Iterable[tuple[str, np.ndarray]], shard_bytes: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields items together, as many as reach `shard_bytes`."""
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
    """Returns what `write_weights` wrote. Raises UserError when the folder is missing or damaged."""
    files = sorted(folder.glob("weights-*.safetensors"))
    if [file.name for file in files] != [f"weights-{number:05d}.safetensors" for number in range(1, len(files) + 1)]:
        raise UserError(f"weights {folder}: a file before {files[-1].name} is missing; import the model again")
    if not files:
        raise UserError(f"weights {folder}: there are none; import the model again")
    return open_safetensors(files, "import the model again")


def open_safetensors(files: Iterable[Path], remedy: str) -> Weights:
    """Returns the arrays of safetensors files together.

    Args:
      remedy: what to do about a file that cannot be read.

    Raises:
      UserError: a file is missing or damaged.
    """

    def attempt(file: Path, read: Callable[[Any], Result]) -> Result:
        try:
            with safe_open(file, framework="np") as opened:  # anew each time: what stays open stays in memory
                return read(opened)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file} cannot be read ({error}): {remedy}") from None

    def reader(file: Path, name: str) -> Callable[[], np.ndarray]:
        return lambda: attempt(file, lambda opened: opened.get_tensor(name))

    return Lazy({name: reader(file, name) for file in files for name in attempt(file, lambda opened: opened.keys())})


def checked(weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of the parameters of a model, each read when its turn comes.

    Args:
      shapes: {canonical name: shape} of the model.

    Raises:
      UserError: naming a weight that is missing, unknown or of another shape; names are compared before any is read.
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
      UserError: naming the first entry that is missing, unknown or of another shape.
    """
    for name in sorted(state.keys() | expected.keys()):
        found, wanted = state.get(name), expected.get(name)
        if found is None or wanted is None or found.shape != wanted:
            shape = "absent" if found is None else list(found.shape)
            wanted = "no such entry" if wanted is None else list(wanted)
            raise UserError(
                f"state entry {name} is {shape}, this model has {wanted}: use the config that the state was made with"
            )
