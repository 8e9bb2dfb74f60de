"""Opens what a training run starts with, however it starts.

| the run's folder has a checkpoint | run.resume_from or run.branch | the run |
|---|---|---|
| no | unset | begins with initial weights, or with those of finetune.base |
| yes | unset | goes on from its newest checkpoint, in the same twin |
| no | set | gets a copy of the other run's newest checkpoint and record, and goes on from there in either twin |
| yes | set | goes on from its newest checkpoint; if run.resume_from is its own folder, in either twin |

So after its start each run is alike: it has begun, or it goes on from a checkpoint of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from slm_core.config import Config
from slm_core.data import Batches, Dataset, prepare, validation_batches
from slm_core.inference.evaluation import VALIDATION_SEED
from slm_core.model.weights import Weights
from slm_core.protocols import Engine
from slm_core.runs.checkpoints import LoopState, read_loop, remove_old
from slm_core.runs.chosen import mend_best, same_measure
from slm_core.runs.folder import RunFolder, open_run
from slm_core.runs.origin import check_text, open_source
from slm_core.runs.progress import Progress
from slm_core.runs.record import warn_of_damage
from slm_core.runs.saved import SavedRun
from slm_core.training.deviation import check_deviation
from slm_core.training.finetuning import base_weights, check_tokens, open_base
from slm_core.training.opening import open_engine


@dataclass(frozen=True)
class Start:
    """What a run starts with.

    Args:
      run: its folder, locked.
      base: the run whose weights it began with, if any.
      checkpoint: to go on from; None: it begins.
      loop: the loop's state in that checkpoint.
    """

    config: Config
    run: RunFolder
    dataset: Dataset
    base: SavedRun | None
    checkpoint: Path | None
    loop: LoopState

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.loop.progress

    def engine(
        self, build: Callable[[Config, int, Weights | None], Engine], weights_of: Callable[[SavedRun], Weights]
    ) -> Engine:
        """Builds the engine, with the checkpoint's state if there is one.

        Raises:
          UserError: it does not fit the memory, or the state does not fit it.
        """
        weights = base_weights(self.config, self.base, weights_of) if self.base and not self.checkpoint else None
        engine = open_engine(lambda config: build(config, self.run.vocab_size, weights), self.config, self.run)
        if self.checkpoint:
            engine.restore(self.checkpoint / "state")
            self._check(engine, self.checkpoint)
        return engine

    def _check(self, engine: Engine, checkpoint: Path) -> None:
        step = self.progress.step
        check_deviation(
            self.run.path,
            checkpoint / "state",
            step,
            engine,
            self.validation,
            engine.config.train.micro_batch_size or self.config.train.batch_size,
            same_measure(self.run.changed_at(step)),
        )

    def batches(self) -> Batches:
        """Opens the training batches, at the checkpoint's position if there is one."""
        config = self.config
        batches = Batches(self.dataset, "train", config.data.seq_len, config.train.batch_size, config.seed)
        if self.checkpoint:
            batches.restore(msgspec.to_builtins(self.loop.data))
        return batches

    def validation(self) -> list[Any]:
        """Makes the validation batches."""
        length, train = self.config.data.seq_len, self.config.train
        return list(validation_batches(self.dataset, length, train.batch_size, train.eval_batches, VALIDATION_SEED))


@contextmanager
def start(config: Config, framework: str, preset: str, overrides: Iterable[str]) -> Iterator[Start]:
    """Prepares the data, and opens and locks the folder of a run.

    Raises:
      UserError: a base or a source is not there or does not fit, the data cannot be prepared, or the folder belongs to
        another run.
    """
    base = open_base(config)
    source = open_source(config, framework, preset, overrides)
    dataset = prepare(config.data)
    if source:
        check_tokens(config, source.run, dataset)
        check_text(source, config, dataset.fingerprint)
    if base:
        check_tokens(config, base, dataset)
    with open_run(config, framework, preset, overrides, dataset, base, source) as run:
        loop = LoopState(progress=Progress())
        if run.checkpoint:
            loop = read_loop(run.checkpoint)
            warn_of_damage(run.path, loop.lines)
            keeps = config.train.keep_best and same_measure(run.changed_at(loop.progress.step))
            mend_best(loop.progress, run.checkpoints, run.identity, keeps)
            remove_old(run.checkpoints, loop, config.train.keep_checkpoints)  # of a process that ended before it did
        yield Start(config, run, dataset, base, run.checkpoint, loop)
