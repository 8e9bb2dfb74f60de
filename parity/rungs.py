"""The rungs: each takes a pair of twins and returns the worst error and where it is."""

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np

from parity.budgets import GRADIENT_FLOOR
from parity.errors import largest, of_order_one, relative
from parity.pair import Pair
from parity.port import State, port, snapshot
from parity.probe import evaluated_logits
from slm_core.inference.sampling import generate
from slm_core.protocols import Engine
from slm_core.training.schedules import learning_rates

UPDATES = 100  # of a curve
HANDED = 8  # updates in each twin of a hand-off
Error = tuple[float, str]
"""The worst error, and the tensor or step that it belongs to."""


def init(pair: Pair) -> Error:
    """Rung 0: the state that the seed gives, names, shapes, dtypes and bits."""
    a, b = pair.torch.export_state(), pair.flax.export_state()
    if a.keys() != b.keys():
        return np.inf, f"{min(a.keys() ^ b.keys())} is in one twin only"
    differing = [name for name in a if a[name].dtype != b[name].dtype or a[name].tobytes() != b[name].tobytes()]
    return worst((largest(a[name], b[name]) or np.inf, name) for name in differing)


def logits(pair: Pair) -> Error:
    """Rung 1: the logits of perturbed weights."""
    a, b = pair.probes
    return of_order_one(a.logits, b.logits), "logits"


def gradient(pair: Pair) -> Error:
    """Rung 2: the loss of perturbed weights and its gradient in each parameter."""
    a, b = pair.probes
    floor = GRADIENT_FLOOR * np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in b.gradients.values()))
    errors = [(relative(a.gradients[name], g, floor), name) for name, g in b.gradients.items()]
    return worst([(relative(a.loss, b.loss), "loss"), *errors])


def update(pair: Pair) -> Error:
    """Rung 3: everything after one update of perturbed weights and moments.

    The learning rate is large, so that the update and not the weight before it is what is measured.
    """
    pair.perturb()
    metrics = [engine.fetch(engine.train_step(pair.tokens, 0.1, 3)) for engine in pair.engines.values()]
    return worst([*compare_states(snapshot(pair.torch), snapshot(pair.flax)), *compare_values(*metrics)])


def curve(pair: Pair) -> Error:
    """Rung 4: the losses of 100 updates; each twin starts from the seed, nothing is ported."""
    pair.start()
    return compare_curves(*(train(pair, engine, 0, UPDATES) for engine in pair.engines.values()))


def decode(pair: Pair) -> Error:
    """Rung 5: prefill and steps against the full forward, then greedy and sampled tokens, past the context's end."""
    row, full = pair.tokens[-1, :-1].tolist(), {"torch": pair.probes[0].logits[-1], "flax": pair.probes[1].logits[-1]}
    pair.perturb()
    if pair.torch.averages:  # what is decoded with is not what was probed
        full = {name: evaluated_logits(engine, pair.tokens[-1:, :-1])[0] for name, engine in pair.engines.items()}
    decoders = {name: engine.decoder() for name, engine in pair.engines.items()}
    errors = []
    for name, decoder in decoders.items():
        prompt = len(row) // 2 - 1
        steps = [decoder.prefill(row[:prompt]), *(decoder.step(token) for token in row[prompt:])]
        for other, wanted in full.items():
            errors.append((of_order_one(np.array(steps), wanted[prompt - 1 :]), f"{name}'s cache against {other}"))
    for options in (
        {"temperature": 0},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.8, "top_k": 9, "top_p": 0.9},
    ):
        texts = [list(islice(generate(d, row[:5], 12, **options), 12)) for d in decoders.values()]
        errors.append((0.0 if texts[0] == texts[1] else np.inf, f"tokens with {options}"))
    return worst(errors)


def hand_off(pair: Pair) -> Error:
    """Rung 6: N updates in one twin and N in the other against 2N in the first, both ways."""
    errors = []
    for first, second in ((pair.torch, pair.flax), (pair.flax, pair.torch)):
        pair.start()
        alone = train(pair, first, 0, 2 * HANDED)
        pair.start()
        before = train(pair, first, 0, HANDED)
        port(first, second)
        error, where = compare_curves(alone, before + train(pair, second, HANDED, 2 * HANDED))
        errors.append((error, f"{first.framework} to {second.framework}, {where}"))
    return worst(errors)


RUNGS = {0: init, 1: logits, 2: gradient, 3: update, 4: curve, 5: decode, 6: hand_off}


def train(pair: Pair, engine: Engine, start: int, stop: int) -> list[dict[str, float]]:
    """Returns the metrics of updates start to stop - 1 of the cell's schedule."""
    rates = learning_rates(pair.config.optim, UPDATES)
    return [engine.fetch(engine.train_step(pair.batch(step), rates[step], step)) for step in range(start, stop)]


def compare_curves(a: list[dict[str, float]], b: list[dict[str, float]]) -> Error:
    """Returns the largest difference of losses; infinite where other steps were skipped or scaled."""
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
    return [(relative(np.array(a[name]), np.array(b[name])), name) for name in b]


def worst(errors: Iterable[Error]) -> Error:
    """Returns the largest error and where it is; 0 where there is none. NaN counts as infinite."""
    numbers = [(np.inf if np.isnan(error) else error, where) for error, where in errors]
    return max(numbers, key=lambda pair: pair[0], default=(0.0, ""))
