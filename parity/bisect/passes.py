"""Compares single passes: the initial state, forward, backward, and both with dropout."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from parity.bisect.divergence import TENSOR_TOLERANCES, Agreement, Comparison, joined, trace_comparisons, walk
from parity.bisect.events import LOSS, Event
from parity.bisect.states import exact_comparisons, gradient_comparisons, module_of
from parity.bisect.trace_torch import array
from parity.bisect.twins import STEP, Twins, parameter_gradients


def init(twins: Twins) -> Agreement:
    """Compares the states of both twins, which the seed gave: names, shapes, dtypes and bits."""
    return walk("init", exact_comparisons(twins.torch.export_state(), twins.flax.export_state(), module_of), 0.0)


def forward(twins: Twins) -> Agreement:
    """Compares every call of the model, with perturbed weights."""
    return _half(twins, "forward")


def backward(twins: Twins) -> Agreement:
    """Compares the gradients of the same pass."""
    return _half(twins, "backward")


def _half(twins: Twins, stage: str) -> Agreement:
    twins.torch.import_state(twins.perturbed)
    comparisons = trace_comparisons(stage, twins.trace_torch(twins.tokens), twins.forward)
    return walk(stage, comparisons, TENSOR_TOLERANCES[twins.precision])


def training(twins: Twins) -> Agreement:
    """Compares each micro-batch with the dropout of its update, forward and backward.

    Then it compares each twin with itself as it trains: layers computed again or in a loop, and the loss in chunks.
    """
    twins.torch.import_state(twins.perturbed)
    comparisons = []
    for (first, piece), sound in zip(twins.split(twins.tokens), twins.training, strict=True):
        trace = twins.trace_torch(piece, STEP, first)
        comparisons += trace_comparisons("forward", trace, sound) + trace_comparisons("backward", trace, sound)
    agreement = walk("training", comparisons, TENSOR_TOLERANCES[twins.precision])
    for name, model, losses in (
        ("PyTorch", twins.torch.model, _losses_torch),
        ("Flax", twins.flax.model, _losses_flax),
    ):
        if not agreement.divergence:
            agreement = joined(agreement, _as_trained(twins, name, model, losses))
    return agreement


def _as_trained(twins: Twins, name: str, model: Any, losses: Callable[[Twins, str], list[Comparison]]) -> Agreement:
    """Compares a twin's loss and gradients with the trace, in which both twins agree."""
    agreement = walk("training", losses(twins, name), TENSOR_TOLERANCES[twins.precision])
    if agreement.divergence and model.remat != "none":
        with patch.object(model, "remat", "none"):
            again = walk("training", losses(twins, name), TENSOR_TOLERANCES[twins.precision])
        if not again.divergence:
            detail = f"only under memory.remat, in {name}"
            return replace(agreement, divergence=replace(agreement.divergence, module="model", detail=detail))
    return agreement


def _losses_torch(twins: Twins, name: str) -> list[Comparison]:
    engine, (first, piece) = twins.torch, twins.split(twins.tokens)[-1]
    sums = engine.loss_sums(torch.from_numpy(piece).to(engine.device, torch.int64), twins.trace_torch.key(STEP, first))
    moving = {name: p for name, p in engine.params.items() if p.requires_grad}
    computed = torch.autograd.grad(sums.objective, list(moving.values()), allow_unused=True)
    gradients = {
        name: array(torch.zeros_like(p) if g is None else g)
        for (name, p), g in zip(moving.items(), computed, strict=True)
    }
    values = {name: array(value) for name, value in sums._asdict().items()}
    return _loss_comparisons(name, values, gradients, twins.training[-1])


def _losses_flax(twins: Twins, name: str) -> list[Comparison]:
    """Compares the first micro-batch, because `_gradients` counts its rows from 0."""
    twins.flax.import_state(twins.perturbed)
    tokens, gradients = twins.gradients_flax(twins.split(twins.tokens)[0][1], STEP)
    return _loss_comparisons(name, {"tokens": tokens}, gradients, twins.training[0])


def _loss_comparisons(
    name: str, values: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray], sound: list[Event]
) -> list[Comparison]:
    outputs = {event.tensor: event.value for event in sound if event.path == LOSS and event.stage == "forward"}
    how = f"as {name} trains"
    comparisons = [
        Comparison(LOSS, f"loss {how}: {key}", value, outputs[f"output.{key}"]) for key, value in values.items()
    ]
    return comparisons + gradient_comparisons(gradients, parameter_gradients(sound), LOSS, how)
