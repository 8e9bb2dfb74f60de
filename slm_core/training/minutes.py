"""Chooses train.steps so that a run lasts train.minutes."""

import bisect
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.inference.evaluation import evaluate
from slm_core.inference.sampling import generate
from slm_core.logging import say
from slm_core.protocols import Engine
from slm_core.runs.description import read_description
from slm_core.runs.naming import run_name
from slm_core.runs.whole import was_saved
from slm_core.training.starting import Start

SHARE, LONGEST, LEAST = 0.03, 60, 5
"""Updates are measured for this share of the minutes, at most so many seconds; and at least so many of them."""
PIECES, TOKENS = 3, 16
"""Batches of an evaluation and tokens of a sample that are measured."""


def keep_plan(config: Config, framework: str, preset: str, overrides: Iterable[str]) -> Config:
    """Returns the config with the steps that were chosen when its run began, if the run goes on.

    Raises:
      UserError: the run was begun with another length.
    """
    path = Path(config.run.dir) / run_name(config, framework, preset, overrides)
    if not config.run.resume or not was_saved(path / "checkpoints"):
        return config
    begun = read_description(path)["config"].train
    if begun.minutes != config.train.minutes:
        was = f"train.minutes={begun.minutes:g}" if begun.minutes else f"train.steps={begun.steps}"
        raise UserError(
            f"train.minutes={config.train.minutes:g}: {path} was begun with {was}, and its steps are planned; to let it"
            " train longer set train.steps instead, or start a new run with --config.run.resume=False"
        )
    return with_values(config, {"train.steps": begun.steps})


def planned_steps(config: Config, engine: Engine, begin: Start, began: float) -> int:
    """Measures what the run will do, gives the engine its state back, and returns the updates that fit.

    Args:
      began: when the run began, by `time.perf_counter`.

    Raises:
      UserError: not one update fits, or the warm-up is as long as the run.
    """
    seconds = 60 * config.train.minutes
    state = engine.export_state()
    update = _update_seconds(config, engine, begin, min(SHARE * seconds, LONGEST))
    beside = list(_beside(config, engine, begin))
    engine.import_state(state)
    left = seconds - (time.perf_counter() - began)

    def takes(steps: int) -> float:
        return update * steps + sum(cost * (math.ceil(steps / every) if every else 1) for every, cost in beside)

    steps = bisect.bisect_right(range(1, int(left / update) + 1), left, key=takes)
    if steps < 1:
        raise UserError(
            f"train.minutes={config.train.minutes:g}: not one update fits; one takes {update:.2g} s here, and the last"
            f" evaluation and sample {sum(cost for _, cost in beside):.2g} s"
        )
    warm_up = config.optim.warmup_steps
    if warm_up is not None and warm_up >= steps:
        raise UserError(
            f"optim.warmup_steps={warm_up} must be less than the {steps} updates that fit in"
            f" train.minutes={config.train.minutes:g}: leave it unset"
        )
    say(f"train.minutes={config.train.minutes:g}: {steps:,} updates of {update:.2g} s each")
    return steps


def _update_seconds(config: Config, engine: Engine, begin: Start, limit: float) -> float:
    """Measures an update: the median of at least LEAST, and of as many as the limit of seconds allows."""
    batches, steps, times = begin.batches(), itertools.count(), []

    def update() -> None:
        engine.fetch(engine.train_step(next(batches), config.optim.lr, next(steps)))

    update()  # compiles
    until = time.perf_counter() + limit
    while len(times) < LEAST or time.perf_counter() <= until:
        times.append(_seconds(update))
    return statistics.median(times)


def _beside(config: Config, engine: Engine, begin: Start) -> Iterable[tuple[int, float]]:
    """Yields (train.eval_every and the like, seconds that it takes) of what is done between updates."""
    train = config.train
    validation = begin.validation()
    rows = engine.config.train.micro_batch_size or train.batch_size
    pieces = validation[:PIECES]
    yield train.eval_every, _second_time(lambda: evaluate(engine, pieces, rows)) * len(validation) / len(pieces)
    if train.sample_every:
        tokens = min(TOKENS, train.sample_tokens)
        prompt = begin.dataset.opening(1)
        cost = _second_time(lambda: list(generate(engine.decoder(), prompt, tokens, seed=0)))
        yield train.sample_every, cost * train.sample_tokens / tokens
    if train.log_details_every:
        batch = next(begin.batches())
        yield train.log_details_every, _second_time(lambda: engine.details(batch, 0))


def _second_time(work: Callable[[], Any]) -> float:
    """Measures what work takes, in seconds, once it is compiled."""
    work()
    return _seconds(work)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
