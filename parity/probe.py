"""Computes logits and gradients in either twin, with the model and loss that its engine trains."""

from dataclasses import dataclass

import jax
import numpy as np
import torch

import slm_flax.loss
import slm_flax.trainer
import slm_torch.loss
import slm_torch.trainer
from slm_core.protocols import Engine
from slm_flax.params import bind


@dataclass(frozen=True)
class Probe:
    """One pass over a batch, without dropout.

    Args:
      logits: [rows, length, vocab].
      loss: what training minimises, as a sum over the tokens.
      gradients: of the loss, by canonical name, of the parameters that are not frozen.
    """

    logits: np.ndarray
    loss: np.ndarray
    gradients: dict[str, np.ndarray]


def probe(engine: Engine, tokens: np.ndarray) -> Probe:
    """Runs either twin over tokens, int32 [rows, length + 1]."""
    if isinstance(engine, slm_torch.trainer.Engine):
        return probe_torch(engine, tokens)
    assert isinstance(engine, slm_flax.trainer.Engine)
    return probe_flax(engine, tokens)


def probe_torch(engine: slm_torch.trainer.Engine, tokens: np.ndarray) -> Probe:
    """Runs the PyTorch twin over tokens, int32 [rows, length + 1]."""
    batch = torch.from_numpy(tokens).to(engine.device, torch.int64)
    with torch.no_grad():
        logits = engine.model.logits(slm_torch.loss.read(engine.model, batch[:, :-1], None)[0])
    loss = engine.loss_sums(batch, None).objective
    moving = {name: p for name, p in engine.params.items() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(moving.values()))
    arrays = {name: g.cpu().numpy() for name, g in zip(moving, gradients, strict=True)}
    return Probe(logits.cpu().numpy(), loss.detach().cpu().numpy(), arrays)


def probe_flax(engine: slm_flax.trainer.Engine, tokens: np.ndarray) -> Probe:
    """Runs the Flax twin over tokens, int32 [rows, length + 1]."""

    @jax.jit
    def run(values, tokens):
        model = bind(engine.model, values)
        logits = model.logits(slm_flax.loss.read(model, tokens[:, :-1], None)[0])
        objective = lambda moving: engine.loss_sums(values | moving, tokens, None).objective  # noqa: E731
        moving = {name: value for name, value in values.items() if name in engine.moving}
        return logits, jax.value_and_grad(objective)(moving)

    logits, (loss, gradients) = jax.device_get(run(engine.state["params"], tokens))
    arrays = {name: np.asarray(value) for name, value in engine.stack.unstacked(gradients).items()}
    return Probe(np.asarray(logits), np.asarray(loss), arrays)


def evaluated_logits(engine: slm_torch.trainer.Engine | slm_flax.trainer.Engine, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits of the weights that an engine evaluates and decodes with.

    Args:
      engine: of either twin.
      tokens: without targets, int [rows, length].
    """
    if isinstance(engine, slm_torch.trainer.Engine):
        model = engine.evaluated()
        with torch.no_grad():
            return model.logits(model(torch.from_numpy(tokens).to(engine.device, torch.int64))[0]).cpu().numpy()
    model = bind(engine.model, engine.evaluated())
    return np.asarray(jax.jit(lambda tokens: model.logits(model(tokens)[0]))(tokens))
