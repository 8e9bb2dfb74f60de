"""The training loop, written once. It drives an `Engine` of either twin through data, schedule, evaluation, samples,
checkpoints and interruptions."""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.inference.evaluation import evaluate
from slm_core.inference.sampling import generate
from slm_core.model.weights import Weights
from slm_core.protocols import Engine
from slm_core.runs.checkpoints import LoopState, Position
from slm_core.runs.folder import RunFolder
from slm_core.runs.progress import Progress
from slm_core.runs.saved import SavedRun
from slm_core.runs.weights import run_weights
from slm_core.training.display.plain import make_display
from slm_core.training.divergence import stop_if_diverged, stop_if_not_finite
from slm_core.training.metrics import Metrics, finite
from slm_core.training.minutes import keep_plan, planned_steps
from slm_core.training.saving import Saver
from slm_core.training.schedules import learning_rates
from slm_core.training.signals import StopRequest, stop_on_signal
from slm_core.training.speed import Speed
from slm_core.training.starting import Start, start
from slm_core.training.summary import print_companions, print_end, print_start, shows_accuracy
from slm_core.training.trackers import check_trackers, open_trackers

SAMPLE = {"temperature": 0.8, "top_k": 0, "top_p": 0.95}
SAMPLE_PROMPT_TOKENS = 32


@dataclass(frozen=True)
class RunResult:
    """The end of a call of `train`."""

    folder: Path
    step: int
    finished: bool  # False: stopped by a signal, and saved
    eval_loss: float | None  # of the last evaluation, nats per token
    eval_accuracy: float | None = None  # of the last evaluation


def train(
    config: Config,
    build: Callable[[Config, int, Weights | None], Engine],
    framework: str,
    preset: str = "default",
    overrides: Iterable[str] = (),
    weights_of: Callable[[SavedRun], Weights] = run_weights,
) -> RunResult:
    """Trains a run to its last step, from its latest checkpoint if it has one.

    Args:
      config: validated.
      build: makes the twin's engine from the config, the vocabulary's size and the weights to start from, if any.
      framework: the twin's name, "torch" or "flax".
      preset, overrides: the preset's name, and the dotted names of the fields set on the command line. They name the
        run.
      weights_of: opens the weights of a run of either twin; called if a run starts from config.finetune.base.

    Raises:
      UserError: a tracker is not installed, the base is not there or does not fit, the data cannot be prepared, the
        folder belongs to another run, or the loss is not finite.
      KeyboardInterrupt: a second Ctrl-C or SIGTERM; nothing is saved then.
    """
    began = time.perf_counter()
    check_trackers(config)
    if config.train.minutes:
        config = keep_plan(config, framework, preset, overrides)
    with start(config, framework, preset, overrides) as begin:
        run, progress = begin.run, begin.progress
        if progress.step == config.train.steps:
            print(f"{run.path} is already complete ({progress.step} steps)")
            print("to train it anew beside the old one: --config.run.resume=False")
            return _end(config, run, progress)
        engine = begin.engine(build, weights_of)
        if config.train.minutes and not begin.checkpoint:
            config = with_values(config, {"train.steps": planned_steps(config, engine, begin, began)})
            run.plan(config)
        print_start(config, engine, begin.dataset, run, progress, begin.base)
        if not progress.step:
            print_companions(config, overrides)
        _Loop(config, engine, begin, progress).run()
        return _end(config, run, progress)


def _end(config: Config, run: RunFolder, progress: Progress) -> RunResult:
    print_end(config, run, progress)
    finished = progress.step == config.train.steps
    return RunResult(run.path, progress.step, finished, progress.eval_loss, progress.eval_accuracy)


class _Loop:
    """Runs the updates of one process."""

    def __init__(self, config: Config, engine: Engine, begin: Start, progress: Progress):
        self.config, self.train = config, config.train
        self.engine, self.dataset, self.batches = engine, begin.dataset, begin.batches()
        self.run_folder, self.progress = begin.run, progress
        self.learning_rates = learning_rates(config.optim, self.train.steps)
        self.validation = begin.validation()
        self.saver = Saver(engine, begin.run.checkpoints, self.train.keep_checkpoints, begin.run.identity)
        self.dispatched = progress.step + 1  # the update that the engine was given last

    def run(self) -> None:
        """Trains until the last step or a signal. Either way the last act is a checkpoint."""
        self.display = make_display(self.progress.step, self.train.steps)
        folder, step = self.run_folder.path, self.progress.step
        resolved = with_values(self.engine.config, {"train.steps": self.train.steps})
        trackers = open_trackers(resolved, self.engine.framework, folder, step)
        self.metrics = Metrics(folder, step, trackers)
        try:
            self.display.start()
            with stop_on_signal(lambda: self.display.stopping(self.dispatched)) as stop, self.saver:
                self._updates(stop)
        finally:
            self.display.stop()
            self.metrics.close()

    def _updates(self, stop: StopRequest) -> None:
        """Dispatches each update before it waits for the metrics of the one before, so that the device never idles."""
        pending: tuple[int, Any, dict[str, float], Any] | None = None
        self.speed = Speed(self.progress.tokens)
        for step in range(self.progress.step + 1, self.train.steps + 1):
            self.dispatched = step
            batch, details = next(self.batches), {}
            if self._details_due(step):
                if pending:
                    self._complete(*pending)
                    pending = None
                with self.speed.paused():
                    details = self.engine.details(batch, step - 1)
            device_metrics = self.engine.train_step(batch, float(self.learning_rates[step - 1]), step - 1)
            if pending:
                self._complete(*pending)
            pending = (step, device_metrics, details, batch)
            if stop.requested or self._anything_due(step):
                self._complete(*pending)
                pending = None
                with self.speed.paused():
                    stopped = self._between_updates(step, stop)
                if stopped:
                    return

    def _due(self, every: int, step: int) -> bool:
        return step == self.train.steps or (every > 0 and step % every == 0)

    def _sample_due(self, step: int) -> bool:
        return self.train.sample_every > 0 and self._due(self.train.sample_every, step)

    def _details_due(self, step: int) -> bool:
        return self.train.log_details_every > 0 and (step == 1 or self._due(self.train.log_details_every, step))

    def _anything_due(self, step: int) -> bool:
        return (
            self._due(self.train.eval_every, step)
            or self._due(self.train.checkpoint_every, step)
            or self._sample_due(step)
        )

    def _complete(self, step: int, device_metrics: Any, details: dict[str, float], batch: Any) -> None:
        """Waits for the metrics of the update of a batch, counts it, and writes its line if one is due, and details."""
        metrics = self.engine.fetch(device_metrics)
        progress = self.progress
        progress.step = step
        progress.tokens += self.train.batch_size * self.config.data.seq_len
        skipped = bool(metrics["skipped"])
        progress.skipped += skipped
        progress.skipped_in_row = progress.skipped_in_row + 1 if skipped else 0
        self.display.progress(step, metrics["loss"], progress.skipped)
        if step == 1 or self._due(self.train.log_every, step):
            self._write_line(step, metrics)
        if details:
            self.metrics.details(step, details)
        measure = partial(self.engine.details, batch, step - 1)
        stop_if_diverged(metrics, progress, self.config, self.saver.newest, measure)
        self.saver.check()

    def _write_line(self, step: int, metrics: dict[str, float]) -> None:
        row = self.metrics.write(
            step=step,
            split="train",
            loss=metrics["loss"],
            lr=float(self.learning_rates[step - 1]),
            grad_norm=metrics["grad_norm"],
            tokens=self.progress.tokens,
            tokens_per_second=self.speed.lap(self.progress.tokens),
            loss_scale=metrics["loss_scale"],
            skipped=self.progress.skipped,
            peak_memory_bytes=self.engine.peak_memory_bytes(),
        )
        self.display.line(row)

    def _between_updates(self, step: int, stop: StopRequest) -> bool:
        """Does what is due after a completed update. Returns whether to stop there."""
        self.run_folder.check_there()  # else a save would make the folder anew, with nothing in it but the checkpoint
        if self._due(self.train.eval_every, step):
            self._evaluate(step)
        if self._sample_due(step):
            self._sample(step)
        stopping = stop.requested  # read once: what is decided on here is saved here
        best = self.train.keep_best and self.progress.best_step == step
        if stopping or best or self._due(self.train.checkpoint_every, step):
            self._save(step, last=stopping or step == self.train.steps)
        return stopping

    def _evaluate(self, step: int) -> None:
        rows = self.engine.config.train.micro_batch_size or self.train.batch_size
        nats, tokens, correct = evaluate(self.engine, self.validation, rows)
        self.progress.eval_loss, self.progress.eval_accuracy = finite(nats / tokens), correct / tokens
        if self.train.keep_best:
            self.progress.keep_better(step)
        self.metrics.write(
            step=step,
            split="eval",
            loss=self.progress.eval_loss,
            accuracy=self.progress.eval_accuracy,
            tokens=self.progress.tokens,
            peak_memory_bytes=self.engine.peak_memory_bytes(),
        )
        shown = self.progress.eval_accuracy if shows_accuracy(self.config) else None
        self.display.evaluated(step, self.progress.eval_loss, shown)

    def _sample(self, step: int) -> None:
        """Lets the model continue the opening of the validation split, with the same random numbers every time."""
        decoder = self.engine.decoder()
        length = max(1, min(SAMPLE_PROMPT_TOKENS, decoder.context // 4))
        prompt = self.dataset.opening(length)
        tokens = generate(decoder, prompt, self.train.sample_tokens, **SAMPLE, seed=self.config.seed)
        try:
            text = self.dataset.tokenizer.decode(prompt + list(tokens))
        except FloatingPointError as error:  # the next update stops the run, and says why
            text = f"(no text: {error})"
        self.run_folder.save_sample(step, text)
        self.metrics.sample(step, text)
        self.display.sample(step, text)

    def _save(self, step: int, last: bool) -> None:
        """Saves a checkpoint. Training goes on beside it, unless it is the last one: then no copy is needed."""
        stop_if_not_finite(self.engine.non_finite_parameter(), step, self.config.optim.lr, self.saver.newest)
        data, lines = Position(**self.batches.state()), self.metrics.sums()
        state = LoopState(progress=copy.copy(self.progress), data=data, lines=lines)
        # A checkpoint vouches for every line up to its step, so it waits for them.
        self.saver.save(state, self.metrics.sync, beside=self.config.run.async_saving and not last)
