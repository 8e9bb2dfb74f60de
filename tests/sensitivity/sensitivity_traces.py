"""Computes digests of what each twin computes under a config: equal digests mean equal computations."""

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr_consts
from torch.utils._python_dispatch import TorchDispatchMode

import slm_flax.layers.dropout
import slm_flax.trainer
import slm_torch.layers.dropout
import slm_torch.trainer
from parity.state_transfer import perturbed
from slm_core.config import Config
from slm_core.model.dropout import site_keys
from slm_core.protocols import first_of_document
from slm_core.training.schedules import learning_rates

VOCAB = 13


def batch(config: Config, step: int) -> np.ndarray:
    """Returns tokens, int32 [batch_size, seq_len + 1]. A document begins amid the first row."""
    shape = (config.train.batch_size, config.data.seq_len + 1)
    tokens = np.random.default_rng(step).integers(0, VOCAB, shape).astype(np.int32)
    tokens[0, shape[1] // 2] = first_of_document(tokens[0, shape[1] // 2])
    return tokens


def _digest(parts: Iterable[Any]) -> str:
    """Returns the hash of texts and of arrays, bit for bit."""
    whole = hashlib.sha256()
    for part in parts:
        if not isinstance(part, str):
            array = np.asarray(part)
            part = f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
        whole.update(part.encode() + b"\0")
    return whole.hexdigest()


def without_addresses(text: str) -> str:
    """Removes the addresses of objects, which differ from run to run."""
    return re.sub(r"0x[0-9a-f]+", "", text)


def _values(named: Mapping[str, Any]) -> list[Any]:
    return [part for item in named.items() for part in item]


# --- PyTorch: values


@functools.cache
def torch_objective(config: Config) -> str:
    """The training loss of one batch with dropout, from the initial weights and from weights that hide nothing."""
    engine = slm_torch.trainer.build(config, VOCAB)
    sites = torch.from_numpy(site_keys(config.seed, 0, config.model.n_layers).view(np.int32))
    key = slm_torch.layers.dropout.DropoutKey(sites, 0)
    tokens = torch.from_numpy(batch(config, 0)).to(torch.int64)
    parts = [engine.loss_sums(tokens, key).objective.detach().numpy()]
    engine.import_state(perturbed(engine.export_state(), seed=1))
    return _digest([*parts, engine.loss_sums(tokens, key).objective.detach().numpy()])


@functools.cache
def torch_training(config: Config) -> str:
    """The initial state, and the state and metrics after every update of a run."""
    engine = slm_torch.trainer.build(config, VOCAB)
    parts = _values(engine.export_state())
    for step, lr in enumerate(learning_rates(config.optim, config.train.steps)):
        metrics = engine.fetch(engine.train_step(batch(config, step), float(lr), step))
        parts += _values(engine.export_state()) + _values(metrics)
    return _digest(parts)


@functools.cache
def torch_operations(config: Config) -> str:
    """The operations of an update, an evaluation and a decoding, with their shapes, types and numbers."""
    engine = slm_torch.trainer.build(config, VOCAB)
    with _Operations() as log:
        engine.train_step(batch(config, 0), 1e-3, 0)
        engine.eval_step(batch(config, 0))
        engine.decoder().prefill([1, 2, 3])
    return _digest(log.operations)


class _Operations(TorchDispatchMode):
    """Records every operation inside it, also those of the backward pass."""

    def __init__(self):
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        shown = (f"{x.dtype}{tuple(x.shape)}" if isinstance(x, torch.Tensor) else repr(x) for x in leaves)
        self.operations.append(without_addresses(f"{func} {' '.join(shown)}"))
        return func(*args, **kwargs or {})


# --- Flax: programs, with the values that they start from


@functools.cache
def flax_objective(config: Config) -> str:
    """The program of the training loss of one batch with dropout, and the initial weights."""
    engine = slm_flax.trainer.build(config, VOCAB)
    sites = jnp.asarray(site_keys(config.seed, 0, config.model.n_layers))
    key = slm_flax.layers.dropout.DropoutKey(sites, jnp.uint32(0))
    objective = lambda values, tokens: engine._loss_sums(values, tokens, key).objective  # noqa: E731
    return _digest(program(objective, (engine.state["params"], jnp.asarray(batch(config, 0)))))


@functools.cache
def flax_training(config: Config) -> str:
    """The program of an update, with the inputs of every update of a run and the initial state."""
    engine = slm_flax.trainer.build(config, VOCAB)
    calls: list[tuple] = []
    engine.update = lambda *args: calls.append(args) or (engine.state, {})
    for step, lr in enumerate(learning_rates(config.optim, config.train.steps)):
        engine.train_step(batch(config, step), float(lr), step)
    return _digest(program(engine._update, *calls))


def program(function: Callable, *calls: tuple) -> Iterator[Any]:
    """Yields the operations that a function's results need, and the constants and inputs that those read."""
    closed = jax.make_jaxpr(function)(*calls[0])
    jaxpr, used_constants, used_inputs = dce_jaxpr_consts(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    yield without_addresses(str(jaxpr))
    yield from itertools.compress(closed.consts, used_constants)
    yield from _inner_constants(jaxpr)
    for call in calls:
        yield from itertools.compress(jax.tree.leaves(call), used_inputs)


def _inner_constants(jaxpr: Any) -> Iterator[Any]:
    """Yields the constant arrays of the programs inside a program."""
    for equation in jaxpr.eqns:
        for parameter in equation.params.values():
            for item in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                if isinstance(item, ClosedJaxpr):
                    yield from item.consts
                if isinstance(item, (ClosedJaxpr, Jaxpr)):
                    yield from _inner_constants(getattr(item, "jaxpr", item))


# --- both

SAME_VALUES = {
    "model.attention.kernel", "model.mixer.chunk", "memory.remat", "memory.loss_chunk", "train.micro_batch_size",
}  # fmt: skip
"""Fields that change how something is computed, not what: in PyTorch they show in the operations alone."""

TRACES: dict[str, dict[str, Callable[[Config], str]]] = {
    "torch": {"objective": torch_objective, "training": torch_training, "operations": torch_operations},
    "flax": {"objective": flax_objective, "training": flax_training, "operations": flax_training},
}


def changes(twin: str, name: str, base: Config, other: Config) -> bool:
    """Says whether a twin computes something else under another config, which differs in this field.

    A field of the model must show in the loss: a parameter that nothing uses would show in training.
    """
    kind = "operations" if name in SAME_VALUES else "objective" if name.startswith("model.") else "training"
    trace = TRACES[twin][kind]
    return trace(base) != trace(other)
