"""Compares an update, a schedule of updates, and a state that goes from one twin to the other."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from parity.bisect.divergence import TENSOR_TOLERANCES, Agreement, Comparison, joined, trace_comparisons, walk
from parity.bisect.states import close_comparisons, exact_comparisons, gradient_comparisons
from parity.bisect.twins import RATE, STEP, Metrics, Twins, Update
from parity.state_transfer import State, snapshot

DRIFT = {"float64": 1e-6, "float32": 0.5, "float16": 10.0, "bfloat16": 10.0}
"""{precision: error of a state after a schedule of updates}: an optimizer divides by roots of rounding."""

STEPS_FACTOR = 10
"""The losses of a schedule may have this many times the rounding of one pass."""


def update(twins: Twins) -> Agreement:
    """Compares one update of the perturbed state with all its micro-batches, in the order of computation."""
    twins.torch.import_state(twins.perturbed)
    taken = walk("state", exact_comparisons(snapshot(twins.torch), twins.perturbed, _owner(twins)), 0.0)
    if taken.divergence:
        return taken
    left = twins.update_torch(twins.perturbed, twins.tokens, RATE, STEP)
    return walk("update", _update_comparisons(twins, left, twins.update), TENSOR_TOLERANCES[twins.precision])


def _update_comparisons(twins: Twins, left: Update, right: Update) -> list[Comparison]:
    scale, loss, *norm = metric_comparisons(left.metrics, right.metrics)
    comparisons = [
        scale,
        loss,
        *gradient_comparisons(left.gradients, right.gradients, "accumulation", "added up"),
        *norm,
    ]
    comparisons += gradient_comparisons(left.clipped, right.clipped, "clipping", "clipped")
    return comparisons + close_comparisons(left.state, right.state, _owner(twins), None)


def steps(twins: Twins) -> Agreement:
    """Compares updates from the initial state, by the schedule. Each starts from the state after the one before."""
    tolerance, so_far, before = STEPS_FACTOR * TENSOR_TOLERANCES[twins.precision], Agreement(0, 0.0, ""), twins.initial
    updates = zip(twins.train(twins.torch, twins.initial), twins.flax_updates, strict=True)
    for step, ((metrics, state), (expected, sound)) in enumerate(updates):
        comparisons = metric_comparisons(metrics, expected) + _drift_comparisons(twins, state, sound)
        agreement = walk("steps", [replace(c, tensor=f"step {step}: {c.tensor}") for c in comparisons], tolerance)
        if agreement.divergence:
            inside = agreement.divergence.module != "scaler" and not expected["skipped"]
            return (inside and _one_step(twins, before, step)) or agreement
        so_far, before = joined(so_far, agreement), sound
    return so_far


def _one_step(twins: Twins, state: State, step: int) -> Agreement | None:
    """Looks for the difference inside one update of the schedule: in its passes, then in the steps after them."""
    tokens, rate, tolerance = twins.batches[step], twins.rates[step], TENSOR_TOLERANCES[twins.precision]
    for engine in (twins.torch, twins.flax):
        engine.import_state(state)
    comparisons = []
    for first, piece in twins.split(tokens):
        left, right = twins.trace_torch(piece, step, first), twins.trace_flax(piece, step, first)
        comparisons += trace_comparisons("forward", left, right) + trace_comparisons("backward", left, right)
    agreement = walk("steps", comparisons, tolerance)
    if not agreement.divergence:
        updates = twins.update_torch(state, tokens, rate, step), twins.update_flax(state, tokens, rate, step)
        agreement = walk("steps", _update_comparisons(twins, *updates), tolerance)
    return agreement if agreement.divergence else None


def state(twins: Twins) -> Agreement:
    """Compares the state after the schedule, transferred both ways, and an update of the transferred state."""
    torch, flax, owner = twins.torch, twins.flax, _owner(twins)
    trained = twins.flax_updates[-1][1] | twins.grown
    torch.import_state(trained)
    exported = snapshot(torch)
    flax.import_state(exported)
    comparisons = exact_comparisons(exported, trained, owner) + exact_comparisons(snapshot(flax), trained, owner)
    agreement = walk("state", comparisons, 0.0)
    if agreement.divergence:
        return agreement
    metrics = [
        e.fetch(e.train_step(twins.tokens, twins.config.optim.lr, len(twins.flax_updates))) for e in (torch, flax)
    ]
    comparisons = metric_comparisons(*metrics) + _drift_comparisons(twins, snapshot(torch), snapshot(flax))
    agreement = walk("state", comparisons, TENSOR_TOLERANCES[twins.precision])
    if agreement.divergence and agreement.divergence.module != "scaler":
        # Passes and updates agree from the same state: the difference is in something that the state lacks.
        agreement = replace(agreement, divergence=replace(agreement.divergence, module="optimizer"))
    return agreement


def _drift_comparisons(twins: Twins, left: State, right: State) -> list[Comparison]:
    """Returns the comparisons of two states after some updates, without entries that only rounding moves."""
    trusted = [name for name in right if name.split("/")[-1] not in twins.noise]
    a, b = ({name: state[name] for name in trusted if name in state} for state in (left, right))
    return close_comparisons(a, b, _owner(twins), DRIFT[twins.precision])


def metric_comparisons(left: Metrics, right: Metrics) -> list[Comparison]:
    """Returns the comparisons of an update's metrics, in the order in which they are computed."""
    return [Comparison(module, name, _metric(left, name), _metric(right, name)) for name, module in METRICS.items()]


METRICS = {"loss_scale": "scaler", "loss": "accumulation", "grad_norm": "clipping", "skipped": "scaler"}
"""{metric: what is broken if it differs though all metrics before it agree}."""


def _metric(metrics: Mapping[str, float], name: str) -> np.ndarray:
    return np.array(metrics[name])


def _owner(twins: Twins) -> Callable[[str], str]:
    """Returns a function from an entry of a state to the part that moves it."""

    def owner(name: str) -> str:
        part, _, rest = name.partition("/")
        balanced = part == "params" and rest in twins.torch.balance_steps
        return "balance" if balanced else "scaler" if part == "scaler" else "optimizer"

    return owner
