"""The checks of the proof: each compares a pair of twins, and returns the worst error and its place.

`CHECKS`, at the end of the file, is the one table of them. The module imports neither framework, so that a command
line can read the table at once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.distances import largest, of_order_one, relative
from parity.state_transfer import State, snapshot, transfer
from parity.tolerances import GRADIENT_FLOOR
from slm_core.inference.sampling import generate
from slm_core.protocols import Engine
from slm_core.training.schedules import learning_rates

if TYPE_CHECKING:
    from parity.pair import Pair

UPDATES = 100
"""Updates of a loss curve."""
HANDED_OVER = 8
"""Updates in each twin of a cross-framework resume."""
SAMPLERS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 0.8, "top_k": 9, "top_p": 0.9},
)
"""Options of the decoding whose tokens must be identical: greedy, then sampled."""

Error = tuple[float, str]
"""The worst error, and the tensor or step that it belongs to."""


def initial_weights(pair: "Pair") -> Error:
    """Compares the state that the seed gives: names, shapes, dtypes and bits."""
    a, b = pair.torch.export_state(), pair.flax.export_state()
    if a.keys() != b.keys():
        return np.inf, f"{min(a.keys() ^ b.keys())} is in one twin only"
    differing = [name for name in a if a[name].dtype != b[name].dtype or a[name].tobytes() != b[name].tobytes()]
    return worst((largest(a[name], b[name]) or np.inf, name) for name in differing)


def logits(pair: "Pair") -> Error:
    """Compares the logits of perturbed weights."""
    a, b = pair.probes
    return of_order_one(a.logits, b.logits), "logits"


def gradients(pair: "Pair") -> Error:
    """Compares the loss of perturbed weights and its gradient in each parameter."""
    a, b = pair.probes
    floor = GRADIENT_FLOOR * np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in b.gradients.values()))
    errors = [(relative(a.gradients[name], g, floor), name) for name, g in b.gradients.items()]
    return worst([(relative(a.loss, b.loss), "loss"), *errors])


def update(pair: "Pair") -> Error:
    """Compares parameters, optimizer states and metrics after one update of perturbed weights and moments.

    The learning rate is large, so that the error is that of the update and not of the weight before it.
    """
    pair.perturb()
    metrics = [engine.fetch(engine.train_step(pair.tokens, 0.1, 3)) for engine in pair.engines.values()]
    return worst([*compare_states(snapshot(pair.torch), snapshot(pair.flax)), *compare_values(*metrics)])


def loss_curve(pair: "Pair") -> Error:
    """Compares the losses of 100 updates. Each twin starts from the seed; no state is transferred."""
    pair.start()
    return compare_losses(*(train(pair, engine, 0, UPDATES) for engine in pair.engines.values()))


def decoding(pair: "Pair") -> Error:
    """Compares the logits of each KV cache with the full forward pass, then the tokens that both twins decode.

    The tokens go past the end of the context.
    """
    row = pair.tokens[-1, :-1].tolist()
    full = {"torch": pair.probes[0].logits[-1], "flax": pair.probes[1].logits[-1]}
    pair.perturb()
    if pair.torch.averages:  # such an optimizer decodes with other weights than those that were probed
        from parity.probe import evaluated_logits

        full = {name: evaluated_logits(engine, pair.tokens[-1:, :-1])[0] for name, engine in pair.engines.items()}
    decoders = {name: engine.decoder() for name, engine in pair.engines.items()}
    errors = []
    for name, decoder in decoders.items():
        prompt = len(row) // 2 - 1
        steps = [decoder.prefill(row[:prompt]), *(decoder.step(token) for token in row[prompt:])]
        for other, expected in full.items():
            errors.append((of_order_one(np.array(steps), expected[prompt - 1 :]), f"{name}'s cache against {other}"))
    for options in SAMPLERS:
        texts = [list(islice(generate(d, row[:5], 12, **options), 12)) for d in decoders.values()]
        errors.append((0.0 if texts[0] == texts[1] else np.inf, f"tokens with {options}"))
    return worst(errors)


def resume(pair: "Pair") -> Error:
    """Compares N updates in one twin and N in the other with 2N in the first, both ways."""
    errors = []
    for first, second in ((pair.torch, pair.flax), (pair.flax, pair.torch)):
        pair.start()
        alone = train(pair, first, 0, 2 * HANDED_OVER)
        pair.start()
        before = train(pair, first, 0, HANDED_OVER)
        transfer(first, second)
        error, where = compare_losses(alone, before + train(pair, second, HANDED_OVER, 2 * HANDED_OVER))
        errors.append((error, f"{first.framework} to {second.framework}, {where}"))
    return worst(errors)


def train(pair: "Pair", engine: Engine, start: int, stop: int) -> list[dict[str, float]]:
    """Returns the metrics of updates start to stop - 1 of the case's schedule."""
    rates = learning_rates(pair.config.optim, UPDATES)
    return [engine.fetch(engine.train_step(pair.batch(step), rates[step], step)) for step in range(start, stop)]


def compare_losses(a: list[dict[str, float]], b: list[dict[str, float]]) -> Error:
    """Returns the largest difference of losses; infinite if another step was skipped or another loss scale used."""
    errors = []
    for step, (x, y) in enumerate(zip(a, b, strict=True)):
        same = x["skipped"] == y["skipped"] and x["loss_scale"] == y["loss_scale"]
        errors.append((largest(x["loss"], y["loss"]) if same else np.inf, f"step {step}"))
    return worst(errors)


def compare_states(a: State, b: State) -> list[Error]:
    """Returns the relative error of each entry of two exported states."""
    return [(relative(a[name], b[name]), name) for name in b]


def compare_values(a: Mapping[str, float], b: Mapping[str, float]) -> list[Error]:
    """Returns the relative error of each metric of an update."""
    return [(relative(a[name], b[name]), name) for name in b]


def worst(errors: Iterable[Error]) -> Error:
    """Returns the largest error and its place; 0 if there are no errors. NaN counts as infinite."""
    numbers = [(np.inf if np.isnan(error) else error, where) for error, where in errors]
    return max(numbers, key=lambda entry: entry[0], default=(0.0, ""))


@dataclass(frozen=True)
class Check:
    """One comparison of two twins.

    Args:
      measure: returns the worst error of a pair, and its place.
      metric: what the error is.
      restarts: whether it takes the twins back to the state that the seed gave, which the pair must then keep.
    """

    measure: Callable[["Pair"], Error]
    metric: str
    restarts: bool = False

    @property
    def name(self) -> str:
        return self.measure.__name__

    @property
    def title(self) -> str:
        """The name as pages show it."""
        return self.name.replace("_", " ")


CHECKS = {
    check.name: check
    for check in (
        Check(
            initial_weights,
            "largest difference of the state that the seed gives; 0 means the same bits, names, shapes and dtypes",
        ),
        Check(logits, "largest difference of logits over their root mean square, or over 1 if that is larger"),
        Check(gradients, "relative L2 error of the loss and of the gradient of each parameter, the worst"),
        Check(update, "relative L2 error of each parameter and optimizer state after one update, the worst", True),
        Check(
            loss_curve,
            "largest difference of the losses of 100 updates; the same updates skipped at the same loss scales",
            True,
        ),
        Check(
            decoding,
            "as logits, with each KV cache against the full forward pass of either twin; the decoded tokens identical",
            True,
        ),
        Check(
            resume,
            "as loss_curve, with N updates in one twin and N in the other against 2N in the first, both ways",
            True,
        ),
    )
}
"""{name: check}, in the order in which they run: each takes for granted what the checks before it prove."""
