"""Measures cross-framework resume: N updates in one twin, N in the other, against 2N in the first.

The state goes through the files of a checkpoint, as that of a run. Nothing but them is shared.
"""

import importlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from parity.cases import PROOFS, Case, tiny
from parity.checks import HANDED_OVER, UPDATES, compare_losses, compare_states, train, worst
from parity.state_transfer import State, snapshot
from parity.tolerances import TOLERANCES
from slm_core.config.fields import with_values
from slm_core.protocols import Engine
from slm_core.training.deviation import EXPECTED
from slm_core.training.schedules import learning_rates

if TYPE_CHECKING:
    from parity.pair import Pair

Overrides = dict[str, Any]

_LORA: Overrides = {"finetune.kind": "lora", "finetune.rank": 4, "optim.lr": 1e-2}
CASES: dict[str, Overrides] = {
    "adamw": {"n_layers": 2},
    "sgd": {"optim.kind": "sgd"},
    "lion": {"optim.kind": "lion"},
    "muon": {"optim.kind": "muon"},
    "adafactor": {"optim.kind": "adafactor"},
    "adamw8bit": {"optim.kind": "adamw8bit", "optim.quantised_from": 64, "optim.quantised_block": 32},
    "schedule_free": {"optim.kind": "schedule_free", "optim.schedule": "constant"},
    "LoRA": _LORA,
    "LoRA on int8": _LORA | {"finetune.frozen": "int8"},
    "LoRA on NF4": _LORA | {"finetune.frozen": "nf4"},
    "mixture with a balancing bias": {"mlp.kind": "moe", "mlp.experts": 4, "mlp.balance_bias": 1e-2},
}
"""{case: overrides of `parity.options.BASE`}: each optimizer, each form of frozen matrices, a mixture of experts."""

FLOAT16: Overrides = {
    "precision.compute": "float16", "precision.loss_scale_init": 2.0**24, "precision.loss_scale_growth_interval": 5,
}  # fmt: skip
"""The first updates overflow. So the scale has fallen, and the updates counted since do not fill an interval, when the
other twin takes over."""

DTYPES = (("float64", "float32"), ("float32", "float64"), ("float32", "float16"), ("float16", "float32"))
"""Pairs of dtypes: that of the twin that stops, and that of the twin that goes on."""
DIRECTIONS = (("torch", "flax"), ("flax", "torch"))
STATE_TOLERANCE = {"float64": 1e-10, "float32": 1e-3, "float16": 2e-2}
"""{precision: largest relative error of an entry of the state after the last update}. In float32 rounding moves single
codes of 8-bit moments over a middle, and the orthogonalised updates of Muon magnify it."""


class Job(NamedTuple):
    """Engines to build: of one precision for both twins, or of the two dtypes of DTYPES."""

    case: str
    precision: str
    then: str = ""  # the dtype of the twin that goes on, if it is another


@dataclass(frozen=True)
class Resume:
    """One resume.

    Args:
      source, target: the twin that stops, and the one that goes on.
      losses: largest difference of a loss of the updates after it.
      state: largest relative error of an entry of the state after the last update.
      where: that entry.
      same_bits: whether the state went there and back without a changed bit, name or dtype.
    """

    case: str
    precision: str
    source: str
    target: str
    losses: float
    state: float
    where: str
    same_bits: bool

    @property
    def passed(self) -> bool:
        close = self.losses <= TOLERANCES[self.precision]["resume"] and self.state <= STATE_TOLERANCE[self.precision]
        return close and self.same_bits


@dataclass(frozen=True)
class Move:
    """One resume in another dtype.

    Args:
      source, target: twin and dtype, such as "torch float32".
      deviation: relative difference of the loss of a batch before and after.
      expected: its largest expected value.
    """

    source: str
    target: str
    deviation: float
    expected: float

    @property
    def passed(self) -> bool:
        return self.deviation <= self.expected


def jobs() -> list[Job]:
    """Lists every pair of engines to build."""
    same = [Job(case, precision) for case in CASES for precision in PROOFS]
    return [*same, Job("adamw", "float16"), *(Job("adamw", *pair) for pair in DTYPES)]


def count(todo: list[Job]) -> tuple[int, int, int]:
    """Counts the resumes in one precision, their cases, and the resumes in another dtype."""
    same = [job for job in todo if not job.then]
    cases = {(job.case, job.precision == "float16") for job in same}
    return len(DIRECTIONS) * len(same), len(cases), len(DIRECTIONS) * (len(todo) - len(same))


def case_of(job: Job) -> Case:
    """Makes the case of a job, whose two halves are all of its training."""
    overrides = CASES[job.case] | (FLOAT16 if "float16" in (job.precision, job.then) else {})
    return replace(tiny(job.case, overrides, "model"), checks=("resume",), optimized=False)


def measure(job: Job) -> list[Resume | Move]:
    """Measures both directions of a job."""
    from parity.pair import pin_threads, release

    pin_threads()
    results = list(_moves(job) if job.then else _resumes(job))
    release()
    return results


def _resumes(job: Job) -> Iterator[Resume]:
    from parity.pair import Pair

    pair = Pair(case_of(job), job.precision)
    for source, target in DIRECTIONS:
        yield resume(pair, job, pair.engines[source], pair.engines[target])


def resume(pair: "Pair", job: Job, first: Engine, second: Engine) -> Resume:
    """Trains in one twin alone, then in both, and compares the updates of the second half."""
    pair.start()
    alone = train(pair, first, 0, 2 * HANDED_OVER)
    end = snapshot(first)
    pair.start()
    before = train(pair, first, 0, HANDED_OVER)
    same_bits = there_and_back(first, second)
    after = train(pair, second, HANDED_OVER, 2 * HANDED_OVER)
    losses, _ = compare_losses(alone, before + after)
    state, where = worst(compare_states(snapshot(second), end))
    return Resume(
        job.case, job.precision, first.framework, second.framework, losses, state, where if state else "", same_bits
    )


def there_and_back(first: Engine, second: Engine) -> bool:
    """Gives `second` the checkpoint of `first`, and `first` that of `second`. Tells whether every bit is the same."""
    begun = snapshot(first)
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        for path, giver, taker in ((there, first, second), (back, second, first)):
            path.mkdir()
            giver.save(path)
            taker.restore(path)
    return same(begun, snapshot(second)) and same(begun, snapshot(first))


def same(a: State, b: State) -> bool:
    """Tells whether two states have the same names, dtypes, shapes and bits."""
    form = lambda state: {name: (x.dtype, x.shape, x.tobytes()) for name, x in state.items()}  # noqa: E731
    return form(a) == form(b)


def _moves(job: Job) -> Iterator[Move]:
    for source, target in DIRECTIONS:
        yield move(job, source, target)


def move(job: Job, source: str, target: str) -> Move:
    """Trains a twin in one dtype, gives its checkpoint to the other in another, and compares the loss of a batch."""
    from parity.pair import make_batch

    case, losses = case_of(job), []
    with tempfile.TemporaryDirectory() as folder:
        for twin, dtype in ((source, job.precision), (target, job.then)):
            engine = _build(case, twin, dtype)
            if losses:
                engine.restore(Path(folder))
            else:
                rates = learning_rates(case.config.optim, UPDATES)
                for step in range(HANDED_OVER):
                    engine.fetch(engine.train_step(make_batch(case, step), float(rates[step]), step))
                engine.save(Path(folder))
            nats, tokens, _ = engine.eval_step(make_batch(case, UPDATES))
            losses.append(nats / tokens)
    deviation = abs(losses[1] - losses[0]) / max(1.0, losses[0])
    expected = max(EXPECTED[dtype] for dtype in (job.precision, job.then))
    return Move(f"{source} {job.precision}", f"{target} {job.then}", deviation, expected)


def _build(case: Case, twin: str, dtype: str) -> Engine:
    params = dtype if dtype in PROOFS else "float32"
    config = with_values(case.config, {"precision.params": params, "precision.compute": dtype})
    return importlib.import_module(f"slm_{twin}.trainer").build(config, case.vocab_size)
