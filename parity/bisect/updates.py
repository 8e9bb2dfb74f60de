"""The stages beyond one pass: an update, a schedule of them, and a state that goes from one twin to the other."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.bisect.divergence import TOLERANCES, Agreement, Check, joined, trace_checks, walk
from parity.bisect.states import close_checks, exact_checks, gradient_checks
from parity.bisect.twins import Metrics, Twins, split
from parity.port import State, snapshot

DRIFT = {"float64": 1e-6, "float32": 0.5, "float16": 10.0, "bfloat16": 10.0}
"""{precision: error of a state after a schedule of updates}: an optimizer divides by roots of rounding."""


STEPS_FACTOR = 10
"""How much more rounding the losses of a schedule may show than one pass."""

SMALL_SCALE = 64.0
"""A loss scale that overflows in none of the small models."""


def update(twins: Twins) -> Agreement:
    """One update of the perturbed state, with all its micro-batches: what comes of it in the order it is computed."""
    twins.torch.import_state(twins.perturbed)
    taken = walk("state", exact_checks(snapshot(twins.torch), twins.perturbed, _owner(twins)), 0.0)
    if taken.divergence:
        return taken
    own, sound = twins.update_torch(), twins.update
    checks = [Check("accumulation", "loss", _metric(own.metrics, "loss"), _metric(sound.metrics, "loss"))]
    checks += gradient_checks(own.gradients, sound.gradients, "accumulation", "added up")
    checks += metric_checks(own.metrics, sound.metrics)[1:]
    checks += gradient_checks(own.clipped, sound.clipped, "clipping", "clipped")
    checks += close_checks(own.state, sound.state, _owner(twins), None)
    return walk("update", checks, TOLERANCES[twins.precision])


def steps(twins: Twins) -> Agreement:
    """Updates from the initial state, by the schedule; each starts where the one before ended."""
    tolerance, so_far, before = STEPS_FACTOR * TOLERANCES[twins.precision], Agreement(0, 0.0, ""), twins.initial
    for step, ((metrics, state), (wanted, sound)) in enumerate(
        zip(twins.train(twins.torch, twins.initial), twins.curve, strict=True)
    ):
        checks = metric_checks(metrics, wanted)
        checks += close_checks(state, sound, _owner(twins), DRIFT[twins.precision])
        found = walk("steps", [replace(c, tensor=f"step {step}: {c.tensor}") for c in checks], tolerance)
        if found.divergence:
            passes = found.divergence.module in ("accumulation", "clipping") and _passes(twins, before, step)
            return passes or found
        so_far, before = joined(so_far, found), sound
    return so_far


def _passes(twins: Twins, state: State, step: int) -> Agreement | None:
    """Looks for what differs in the passes of one update, if it is not the update itself."""
    for engine in (twins.torch, twins.flax):
        engine.import_state(state)
    for first, piece in split(twins.batch(step), twins.config.train.micro_batch_size):
        own, sound = twins.trace_torch(piece, step, first), twins.trace_flax(piece, step, first)
        checks = trace_checks("forward", own, sound) + trace_checks("backward", own, sound)
        found = walk("steps", checks, TOLERANCES[twins.precision])
        if found.divergence:
            return found
    return None


def state(twins: Twins) -> Agreement:
    """The state after the schedule, handed over both ways, and an update of what arrived."""
    torch, flax, owner = twins.torch, twins.flax, _owner(twins)
    trained = twins.curve[-1][1] | _about_to_grow(twins)
    torch.import_state(trained)
    exported = snapshot(torch)
    flax.import_state(exported)
    checks = exact_checks(exported, trained, owner) + exact_checks(snapshot(flax), trained, owner)
    found = walk("state", checks, 0.0)
    if found.divergence:
        return found
    metrics = [e.fetch(e.train_step(twins.tokens, twins.config.optim.lr, len(twins.curve))) for e in (torch, flax)]
    checks = metric_checks(*metrics)
    checks += close_checks(snapshot(torch), snapshot(flax), owner, DRIFT[twins.precision])
    found = walk("state", checks, TOLERANCES[twins.precision])
    if found.divergence and found.divergence.module != "scaler":
        # Passes and updates agree from the same state: what differs is what the state did not hold.
        found = replace(found, divergence=replace(found.divergence, module="optimizer"))
    return found


def _about_to_grow(twins: Twins) -> State:
    """Returns the state of a loss scale that one more finite update lets grow; {} where it stays 1."""
    if not twins.torch.scaler.active:
        return {}
    wait = twins.config.precision.loss_scale_growth_interval - 1
    return {"scaler/scale": np.array(SMALL_SCALE, np.float32), "scaler/good_steps": np.array(wait, np.int32)}


def metric_checks(left: Metrics, right: Metrics) -> list[Check]:
    """Returns the checks of an update's metrics: the loss first."""
    return [Check(module, name, _metric(left, name), _metric(right, name)) for name, module in METRICS.items()]


METRICS = {"loss": "accumulation", "grad_norm": "clipping", "loss_scale": "scaler", "skipped": "scaler"}
"""{metric: what is broken if it differs though all before it agrees}."""


def _metric(metrics: Mapping[str, float], name: str) -> np.ndarray:
    return np.array(metrics[name])


def _owner(twins: Twins):
    """Returns the function {entry of a state: what moves it}."""

    def owner(name: str) -> str:
        part, _, rest = name.partition("/")
        balanced = part == "params" and rest in twins.torch.balance_steps
        return "balance" if balanced else "scaler" if part == "scaler" else "optimizer"

    return owner
