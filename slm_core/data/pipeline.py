"""Makes batches of tokens, with one Grain pipeline for both twins."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from slm_core.data.dataset import Dataset, Windows
from slm_core.errors import UserError
from slm_core.hardware.devices import quiet_jax
from slm_core.protocols import IGNORE

_ROWS = 2**48  # after which a run has to end


class Batches:
    """Gives endless batches of shuffled windows: `next` returns int32 [batch_size / process_count, seq_len + 1].

    The order follows from (seed, epoch). Each window comes once per epoch, and a batch may take its last rows from the
    next epoch. Batch k of all `process_count` processes together has the same rows as batch k of a single process. A
    thread reads the next batches ahead; `state` counts only those that were handed out.

    Args:
      dataset, split: what to read.
      seq_len: tokens of context per row.
      batch_size: rows per batch, over all processes.
      seed: seed of the order.
      process_index, process_count: this process takes rows process_index, process_index + process_count, ...

    Raises:
      UserError: the split is shorter than one window, or batch_size is not a multiple of process_count.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        seq_len: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if batch_size % process_count:
            raise UserError(
                f"train.batch_size={batch_size}: {process_count} processes share it; choose a multiple of that"
            )
        quiet_jax()
        import grain

        windows = dataset.windows(split, seq_len)
        # Not repeat() without end: Grain then overflows when batch_size is 1.
        rows = grain.MapDataset.source(windows).seed(seed).shuffle().repeat(_ROWS // len(windows) + 1)
        rows = rows[process_index::process_count]
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        self._iterator = iter(rows.batch(batch_size // process_count).to_iter_dataset(options))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> np.ndarray:
        return next(self._iterator)

    def state(self) -> dict[str, Any]:
        """Returns its position as a small JSON object: {"next_index": batches handed out}."""
        return {"next_index": int(self._iterator.get_state()["next_index"])}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the position that `state` returned. Raises UserError for anything else."""
        index = state.get("next_index") if isinstance(state, dict) else None
        if type(index) is not int or index < 0:
            raise UserError(f"data state {state!r}: expected {{'next_index': batches so far}}; use another checkpoint")
        self._iterator.set_state({"next_index": index})


def validation_batches(
    dataset: Dataset, seq_len: int, batch_size: int, max_batches: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields the same validation batches at each call: int32 [batch_size, seq_len + 1].

    If there are more windows than rows, the split is cut into one equal part per row, and one window is drawn at random
    from each. So no window counts twice, and every part of the text is represented. In the last batch, a row without a
    window is IGNORE throughout.

    Raises:
      UserError: the split is shorter than one window.
    """
    return _draw(dataset.windows("validation", seq_len), batch_size, max_batches, seed)


def _draw(windows: Windows, batch_size: int, max_batches: int, seed: int) -> Iterator[np.ndarray]:
    total = len(windows)
    count = min(total, batch_size * max_batches)
    edges = np.arange(count + 1, dtype=np.int64) * total // count
    draws = np.random.Generator(np.random.Philox(seed)).random(count)
    chosen = edges[:-1] + (draws * np.diff(edges)).astype(np.int64)
    for start in range(0, count, batch_size):
        batch = np.full((batch_size, len(windows[0])), IGNORE, np.int32)
        for row, index in enumerate(chosen[start : start + batch_size]):
            batch[row] = windows[int(index)]
        yield batch
