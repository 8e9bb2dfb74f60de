"""Saves checkpoints while training goes on: a thread writes a copy of the state.

An update writes over the state: PyTorch in place, JAX into donated buffers. So the loop waits until the state is copied
to the host, and no longer. The thread then writes, sums, syncs, renames and prunes. At most one save is under way.
The next copy goes into the memory of the last one: the system takes longer to give new memory than to copy.

The thread leaves Python's lock to the loop while it works: safetensors from 0.8 on writes without it, and fsync and
xxhash work without it.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from slm_core.logging import say
from slm_core.protocols import Engine
from slm_core.runs.checkpoints import LoopState, latest_checkpoint, save_checkpoint
from slm_core.runs.fingerprints import Identity
from slm_core.runs.states import describe_state, write_state

_PATIENCE = 2.0
"""Seconds that a save that is given up has to end the file that it writes."""


class _GivenUp(Exception):
    """Ends a save that nobody waits for."""


class _Work(threading.Thread):
    """Does work beside the loop, and keeps what ended it. It is a daemon, so that a second Ctrl-C ends the process."""

    def __init__(self, work: Callable[[], object]):
        super().__init__(name="checkpoint", daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error


class Saver:
    """Saves the checkpoints of a run, one at a time. Use it in a `with`.

    Its end waits for the save under way, whatever ended the loop. A KeyboardInterrupt, the second Ctrl-C, gives the
    save up instead: the checkpoint before it stays the newest.
    """

    def __init__(self, engine: Engine, root: Path, keep: int, identity: Identity):
        """Prepares to save.

        Args:
          root: the run's `checkpoints` folder.
          keep: newest checkpoints that stay.
          identity: of the run.
        """
        self._engine, self._root, self._keep, self._identity = engine, root, keep, identity
        self._work: _Work | None = None
        self._copy: dict[str, np.ndarray] = {}
        self._given_up = threading.Event()

    def save(self, loop: LoopState, sync: Callable[[], None], beside: bool) -> None:
        """Saves a checkpoint of the engine as it is now; first waits for the save under way.

        Args:
          loop: the loop's state, which nobody changes later.
          sync: waits until the lines that the checkpoint vouches for are on the disk.
          beside: return once the state is copied; else write the state itself and return when all is done.

        Raises:
          OSError: the save under way, or this one, cannot be written.
        """
        self.wait()
        if not beside:
            return self._write(self._engine.save, loop, sync)
        self._copy = self._engine.export_state(self._copy)
        writer = describe_state(self._engine.config, self._engine.framework)
        write = lambda folder: write_state(folder, self._entries(), writer)  # noqa: E731
        work = _Work(partial(self._write, write, loop, sync))
        work.start()  # it may fail: a thread needs memory
        self._work = work

    @property
    def under_way(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._work is not None and self._work.is_alive()

    def check(self) -> None:
        """Raises what ended the last save, if it has ended. Does not wait."""
        if not self.under_way:
            self.wait()

    def wait(self) -> None:
        """Waits until the save under way has ended. Raises what ended it, if that is an error."""
        if self._work is None:
            return
        self._work.join()
        error, self._work = self._work.error, None
        if error:
            raise error

    def newest(self) -> Path | None:
        """Finds the newest checkpoint after the save under way has ended; says so if that failed."""
        try:
            self.wait()
        except Exception as error:  # whoever asks is about to end the run for another reason
            say(f"{self._root}: a checkpoint could not be saved ({error})")
        return latest_checkpoint(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception):
                self.newest()
            else:
                self._give_up()
        except KeyboardInterrupt:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Lets the save under way end at its next file, without a checkpoint."""
        self._given_up.set()
        if self._work:
            self._work.join(_PATIENCE)

    def _write(self, write: Callable[[Path], None], loop: LoopState, sync: Callable[[], None]) -> None:
        def state(folder: Path) -> None:
            sync()
            write(folder)
            self._proceed()

        save_checkpoint(self._root, loop.progress.step, state, loop, self._keep, self._identity)

    def _entries(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the entries of the copy, until the save is given up."""
        for entry in self._copy.items():
            self._proceed()
            yield entry

    def _proceed(self) -> None:
        if self._given_up.is_set():
            raise _GivenUp
