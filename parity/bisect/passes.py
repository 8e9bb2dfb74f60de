"""The stages of single passes: the initial state, forward, backward, and both with dropout."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

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
    """Each micro-batch with the dropout of its update, both ways; then as each twin trains: layers computed again, or
    in a loop, and the loss in chunks.
    """
    twins.torch.import_state(twins.perturbed)
    checks = []
    for (first, piece), sound in zip(twins.split(twins.tokens), twins.training, strict=True):
        trace = twins.trace_torch(piece, STEP, first)
        checks += trace_checks("forward", trace, sound) + trace_checks("backward", trace, sound)
    found = walk("training", checks, TOLERANCES[twins.precision])
    for name, model, losses in (
        ("PyTorch", twins.torch.model, _losses_torch),
        ("Flax", twins.flax.model, _losses_flax),
    ):
        if not found.divergence:
            found = joined(found, _as_trained(twins, name, model, losses))
    return found


def _as_trained(twins: Twins, name: str, model: Any, losses: Callable[[Twins, str], list[Check]]) -> Agreement:
    """Compares a twin's loss and gradients with the trace, in which both twins agree."""
    found = walk("training", losses(twins, name), TOLERANCES[twins.precision])
    if found.divergence and model.remat != "none":
        with replaced(model, "remat", "none"):
            again = walk("training", losses(twins, name), TOLERANCES[twins.precision])
        if not again.divergence:
            detail = f"only under memory.remat, in {name}"
            return replace(found, divergence=replace(found.divergence, module="model", detail=detail))
    return found


def _losses_torch(twins: Twins, name: str) -> list[Check]:
    engine, (first, piece) = twins.torch, twins.split(twins.tokens)[-1]
    sums = engine.loss_sums(torch.from_numpy(piece).to(engine.device, torch.int64), twins.trace_torch.key(STEP, first))
    moving = {name: p for name, p in engine.params.items() if p.requires_grad}
    found = torch.autograd.grad(sums.objective, list(moving.values()), allow_unused=True)
    gradients = {
        name: array(torch.zeros_like(p) if g is None else g) for (name, p), g in zip(moving.items(), found, strict=True)
    }
    values = {name: array(value) for name, value in sums._asdict().items()}
    return _loss_checks(name, values, gradients, twins.training[-1])


def _losses_flax(twins: Twins, name: str) -> list[Check]:
    """The first micro-batch: `_gradients` counts its rows from 0."""
    twins.flax.import_state(twins.perturbed)
    tokens, gradients = twins.gradients_flax(twins.split(twins.tokens)[0][1], STEP)
    return _loss_checks(name, {"tokens": tokens}, gradients, twins.training[0])


def _loss_checks(
    name: str, values: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray], sound: list[Event]
) -> list[Check]:
    outputs = {event.tensor: event.value for event in sound if event.path == LOSS and event.stage == "forward"}
    how = f"as {name} trains"
    checks = [Check(LOSS, f"loss {how}: {key}", value, outputs[f"output.{key}"]) for key, value in values.items()]
    return checks + gradient_checks(gradients, parameter_gradients(sound), LOSS, how)
