"""The training loop, written once: it drives an `Engine` of either twin through data, schedule, evaluation, samples,
checkpoints and interruptions."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.inference.sampling import generate
from slm_core.model.weights import Weights
from slm_core.planner.resolve import differences
from slm_core.protocols import Engine
from slm_core.runs.checkpoints import latest_checkpoint, read_loop, save_checkpoint
from slm_core.runs.folder import RunFolder, SavedRun, open_run
from slm_core.training.display.plain import Display, make_display, number
from slm_core.training.metrics import Metrics, finite
from slm_core.training.schedules import learning_rates
from slm_core.training.signals import StopRequest, stop_on_signal

MAX_SKIPPED_IN_A_ROW = 50
"""Updates that the loss scaler may skip one after another: 50 halvings take any usable scale to nothing."""

SAMPLE = {"temperature": 0.8, "top_k": 0, "top_p": 0.95}
SAMPLE_PROMPT_TOKENS = 32
VALIDATION_SEED = 0  # not the run's seed: runs that differ in theirs are measured on the same text


@dataclass
class Progress:
    """What the loop must remember across an interruption, beside the engine's state and the data's position."""

    step: int = 0  # completed updates
    tokens: int = 0  # trained on so far
    skipped: int = 0  # updates not applied so far, by the loss scaler
    skipped_in_row: int = 0
    eval_loss: float | None = None  # of the last evaluation, nats a token; None also when it is not finite


@dataclass(frozen=True)
class RunResult:
    """How `train` ended."""

    folder: Path
    step: int
    finished: bool  # False: stopped by a signal, and saved
    eval_loss: float | None  # of the last evaluation, nats a token


def train(
    config: Config,
    build: Callable[[Config, int, Weights | None], Engine],
    framework: str,
    preset: str = "default",
    overrides: Iterable[str] = (),
    weights_of: Callable[[SavedRun], Weights] | None = None,
) -> RunResult:
    """Trains a run to its last step, from its latest checkpoint if it has one.

    Args:
      config: validated.
      build: makes the twin's engine from the config, the vocabulary's size and the weights to start from, if any.
      framework: the twin's name, "torch" or "flax".
      preset, overrides: the preset's name and the dotted names of the fields set on the command line; they name the
      run.
      weights_of: opens the weights of a run of either twin; called where a run starts from config.finetune.base.

    Raises:
      UserError: the base is not there or does not fit, the data cannot be prepared, the folder belongs to another run,
        or the loss is not finite.
      KeyboardInterrupt: a second Ctrl-C or SIGTERM; nothing is saved then.
    """
    from slm_core import data
    from slm_core.training.finetuning import check_tokens, open_base

    base = open_base(config)
    dataset = data.prepare(config.data)
    if base:
        check_tokens(config, base, dataset)
    vocab_size = base.vocab_size if base else dataset.vocab_size
    with open_run(config, framework, preset, overrides, dataset, base) as run:
        checkpoint = latest_checkpoint(run.checkpoints)
        saved = read_loop(checkpoint) if checkpoint else None
        progress = Progress(**saved["progress"]) if saved else Progress()
        if progress.step == config.train.steps:
            print(f"{run.path} is already complete ({progress.step} steps)")
            print("to train it anew beside the old one: --config.run.resume=False")
            return _result(config, run, progress)
        weights = weights_of(base) if base and not checkpoint else None
        engine = _built(lambda config: build(config, vocab_size, weights), config, run)
        batches = data.Batches(
            dataset, "train", seq_len=config.data.seq_len, batch_size=config.train.batch_size, seed=config.seed
        )
        if checkpoint and saved:
            engine.restore(checkpoint / "state")
            batches.restore(saved["data"])
        _print_facts(config, engine, dataset, run, progress, base)
        _Loop(config, engine, dataset, batches, run, progress).run()
        return _result(config, run, progress)


def _built(build: Callable[[Config], Engine], config: Config, run: RunFolder) -> Engine:
    """Returns the run's engine, with what its first process resolved on its device; what is resolved here is recorded.

    Where that does not fit the memory that is here now, memory is resolved anew, and the dtype alone stays.
    """
    begun = run.resolved or {}
    dtype = {name: value for name, value in begun.items() if name == "precision.compute"}
    try:
        engine = build(with_values(config, begun))
    except UserError:
        if dtype == begun:
            raise
        engine = build(with_values(config, dtype))
        print("what the run resolved when it began does not fit here now: it is resolved anew")
    found = differences(config, engine.config)
    if found != run.resolved:
        run.record(found)
    return engine


class _Loop:
    """One process's share of a run."""

    def __init__(self, config: Config, engine: Engine, dataset: Any, batches: Any, run: RunFolder, progress: Progress):
        from slm_core.data import validation_batches

        self.config, self.train = config, config.train
        self.engine, self.dataset, self.batches = engine, dataset, batches
        self.run_folder, self.progress = run, progress
        self.rates = learning_rates(config.optim, self.train.steps)
        self.validation = list(
            validation_batches(
                dataset, config.data.seq_len, self.train.batch_size, self.train.eval_batches, VALIDATION_SEED
            )
        )
        self.speed = _Speed()
        self.updating = progress.step + 1  # the update that was dispatched last

    def run(self) -> None:
        """Trains until the last step or a signal; either way the last thing done is a checkpoint."""
        self.display: Display = make_display(self.progress.step, self.train.steps)
        self.metrics = Metrics(self.run_folder.path, self.progress.step, self.config.run.tensorboard)
        try:
            self.display.start()
            with stop_on_signal(lambda: self.display.stopping(self.updating)) as stop:
                self._updates(stop)
        finally:
            self.display.stop()
            self.metrics.close()

    def _updates(self, stop: StopRequest) -> None:
        """Dispatches updates one ahead of the metrics that it waits for, so that the device never idles."""
        pending: tuple[int, Any] | None = None
        self.speed.start(self.progress.tokens)
        for step in range(self.progress.step + 1, self.train.steps + 1):
            self.updating = step
            device_metrics = self.engine.train_step(next(self.batches), float(self.rates[step - 1]), step - 1)
            if pending:
                self._complete(*pending)
            pending = (step, device_metrics)
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

    def _anything_due(self, step: int) -> bool:
        return (
            self._due(self.train.eval_every, step)
            or self._due(self.train.checkpoint_every, step)
            or self._sample_due(step)
        )

    def _complete(self, step: int, device_metrics: Any) -> None:
        """Waits for an update's metrics, counts it and writes its line if one is due."""
        values = self.engine.fetch(device_metrics)
        progress = self.progress
        progress.step = step
        progress.tokens += self.train.batch_size * self.config.data.seq_len
        skipped = bool(values["skipped"])
        progress.skipped += skipped
        progress.skipped_in_row = progress.skipped_in_row + 1 if skipped else 0
        self.display.progress(step, values["loss"], progress.skipped)
        if step == 1 or self._due(self.train.log_every, step):
            row = self.metrics.write(
                step=step,
                split="train",
                loss=values["loss"],
                lr=float(self.rates[step - 1]),
                grad_norm=values["grad_norm"],
                tokens=progress.tokens,
                tokens_per_second=self.speed.lap(progress.tokens),
                loss_scale=values["loss_scale"],
                skipped=progress.skipped,
                peak_memory_bytes=self.engine.peak_memory_bytes(),
            )
            self.display.line(row)
        self._stop_if_diverged(values)

    def _stop_if_diverged(self, values: dict[str, float]) -> None:
        """Raises UserError before anything not finite can reach a checkpoint."""
        progress = self.progress
        excused = values["skipped"] and values["loss_scale"] > 1  # a loss that nothing scaled is not finite by itself
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(values[name])]
        if bad and not excused:
            problem = f"{bad[0]} became {values[bad[0]]}"
            remedy = "lower optim.lr, or set optim.clip_norm"
        elif progress.skipped_in_row >= MAX_SKIPPED_IN_A_ROW:
            problem = f"{progress.skipped_in_row} updates in a row had gradients that are not finite"
            remedy = "lower optim.lr, or use a wider precision.compute"
        else:
            return
        good = latest_checkpoint(self.run_folder.checkpoints)
        kept = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        raise UserError(f"optim.lr={self.config.optim.lr}: {problem} at step {progress.step}; {remedy} ({kept})")

    def _between_updates(self, step: int, stop: StopRequest) -> bool:
        """Does what is due after a completed update; returns whether to stop there."""
        if self._due(self.train.eval_every, step):
            self._evaluate(step)
        if self._sample_due(step):
            self._sample(step)
        stopping = stop.requested  # read once: what is decided on here is saved here
        if stopping or self._due(self.train.checkpoint_every, step):
            self._save(step)
        return stopping

    def _evaluate(self, step: int) -> None:
        rows = self.engine.config.train.micro_batch_size or self.train.batch_size
        loss_sum, tokens = 0.0, 0
        for batch in self.validation:
            for first in range(0, len(batch), rows):
                part_sum, part_tokens = self.engine.eval_step(batch[first : first + rows])
                loss_sum, tokens = loss_sum + part_sum, tokens + part_tokens
        self.progress.eval_loss = finite(loss_sum / tokens)
        self.metrics.write(
            step=step,
            split="eval",
            loss=self.progress.eval_loss,
            tokens=self.progress.tokens,
            peak_memory_bytes=self.engine.peak_memory_bytes(),
        )
        self.display.evaluated(step, self.progress.eval_loss)

    def _sample(self, step: int) -> None:
        """Lets the model continue the first tokens of the validation text, with the same random numbers every time."""
        decoder = self.engine.decoder()
        length = max(1, min(SAMPLE_PROMPT_TOKENS, decoder.context // 4))
        prompt = [int(token) for token in self.dataset.tokens("validation")[:length]]
        tokens = generate(decoder, prompt, self.train.sample_tokens, **SAMPLE, seed=self.config.seed)
        text = self.dataset.tokenizer.decode(prompt + list(tokens))
        self.run_folder.save_sample(step, text)
        self.display.sample(step, text)

    def _save(self, step: int) -> None:
        self.metrics.sync()  # a checkpoint vouches for every line up to its step
        state = {"progress": dataclasses.asdict(self.progress), "data": self.batches.state()}
        save_checkpoint(self.run_folder.checkpoints, step, self.engine.save, state, self.train.keep_checkpoints)


class _Speed:
    """Tokens a second of training, leaving out evaluations, samples and checkpoints."""

    def start(self, tokens: int) -> None:
        self._tokens, self._since = tokens, time.perf_counter()

    def lap(self, tokens: int) -> float:
        """Returns the speed since the last lap or start."""
        speed = (tokens - self._tokens) / max(time.perf_counter() - self._since, 1e-9)
        self.start(tokens)
        return speed

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began


def _print_facts(
    config: Config, engine: Engine, dataset: Any, run: RunFolder, progress: Progress, base: SavedRun | None
) -> None:
    tokens = config.train.batch_size * config.data.seq_len
    facts = {
        "run": f"{run.path}" + (f", continued after step {progress.step}" if progress.step else ""),
        **({"starts from": f"{base.checkpoint}"} if base else {}),
        "data": f"{dataset.folder}, vocabulary {dataset.vocab_size}",
        "updates": f"{config.train.steps} of {tokens:,} tokens",
        **engine.facts(),
    }
    if progress.step:  # the engine was given them
        facts |= {
            name.rpartition(".")[2]: f"{value} (as resolved before)" for name, value in (run.resolved or {}).items()
        }
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:{width}}  {fact}", flush=True)


def _result(config: Config, run: RunFolder, progress: Progress) -> RunResult:
    """Says how the run ended and what can be done with it."""
    finished = progress.step == config.train.steps
    if finished:
        print(f"final validation loss {number(progress.eval_loss, '.4f')} nats/token after {progress.step} steps")
    elif config.run.resume:
        print(f"stopped after step {progress.step}, saved; the same command continues it")
    else:
        print(
            f"stopped after step {progress.step}, saved; to continue it: the same command with "
            f"--config.run.name={run.path.name} in place of --config.run.resume=False"
        )
    prompt = "def " if config.data.source == "stdlib" else "The "
    print(f"run folder: {run.path}")
    print(f'text from it: uv run scripts/generate.py --run {run.path} --prompt "{prompt}"', flush=True)
    return RunResult(run.path, progress.step, finished, progress.eval_loss)
