"""The stages of single passes: the initial state, forward, backward, and both with dropout."""

from dataclasses import replace

import numpy as np
import torch

from parity.bisect.divergence import TOLERANCES, Agreement, Check, joined, trace_checks, walk
from parity.bisect.events import LOSS, Event
from parity.bisect.replace import replaced
from parity.bisect.states import exact_checks, gradient_checks, module_of
from parity.bisect.trace_torch import array
from parity.bisect.twins import STEP, Twins, parameter_gradients


def init(twins: Twins) -> Agreement:
    """The state that both twins are in, which the seed gave: names, shapes, dtypes and bits."""
    return walk("init", exact_checks(twins.torch.export_state(), twins.flax.export_state(), module_of), 0.0)


def forward(twins: Twins) -> Agreement:
    """Every call of the model, with perturbed weights."""
    return _half(twins, "forward")


def backward(twins: Twins) -> Agreement:
    """The gradients of the same pass."""
    return _half(twins, "backward")


def _half(twins: Twins, stage: str) -> Agreement:
    twins.torch.import_state(twins.perturbed)
    checks = trace_checks(stage, twins.trace_torch(twins.tokens), twins.forward)
    return walk(stage, checks, TOLERANCES[twins.precision])


def training(twins: Twins) -> Agreement:
    """Each micro-batch with the dropout of its update, both ways; then as it is trained, recomputed and in chunks."""
    twins.torch.import_state(twins.perturbed)
    checks = []
    for (first, piece), sound in zip(twins.split(twins.tokens), twins.training, strict=True):
        trace = twins.trace_torch(piece, STEP, first)
        checks += trace_checks("forward", trace, sound) + trace_checks("backward", trace, sound)
    found = walk("training", checks, TOLERANCES[twins.precision])
    if found.divergence:
        return found
    first, piece = twins.split(twins.tokens)[-1]
    return joined(found, _as_trained(twins, first, piece, twins.training[-1]))


def _as_trained(twins: Twins, first: int, piece: np.ndarray, sound: list[Event]) -> Agreement:
    """Compares the loss and its gradients without a trace: with blocks computed again, and with the loss in chunks."""
    found, model = _losses(twins, first, piece, sound), twins.torch.model
    if found.divergence and model.remat != "none":
        with replaced(model, "remat", "none"):
            again = _losses(twins, first, piece, sound)
        if not again.divergence:
            return replace(
                found, divergence=replace(found.divergence, module="model", detail="only under memory.remat")
            )
    return found


def _losses(twins: Twins, first: int, piece: np.ndarray, sound: list[Event]) -> Agreement:
    engine = twins.torch
    sums = engine.loss_sums(engine._to_device(piece), twins.trace_torch.key(STEP, first))
    moving = {name: p for name, p in engine.params.items() if p.requires_grad}
    found = torch.autograd.grad(sums.objective, list(moving.values()), allow_unused=True)
    gradients = {
        name: array(torch.zeros_like(p) if g is None else g) for (name, p), g in zip(moving.items(), found, strict=True)
    }
    outputs = {event.tensor: event.value for event in sound if event.path == LOSS and event.stage == "forward"}
    checks = [
        Check(LOSS, f"loss as trained: {name}", array(value), outputs[f"output.{name}"])
        for name, value in sums._asdict().items()
    ]
    checks += gradient_checks(gradients, parameter_gradients(sound), LOSS, "as trained")
    return walk("training", checks, TOLERANCES[twins.precision])
