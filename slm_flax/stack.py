"""Stores layers that repeat as one stack: each of their parameters is an array with a first axis of repeats.

A stack can run in a loop. XLA does not merge the recomputation of a loop with its forward pass (see `slm_flax.remat`).
The entries of a stack have the names of its first repeat. Outside of the engine every layer has its own arrays.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.lax import dynamic_index_in_dim

from slm_core.model.layer_groups import Repetition, repetition
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params

AnyArray = TypeVar("AnyArray", Array, np.ndarray)
LAYER = re.compile(r"\blayers\.(\d+)\.")


class Stack(Repetition):
    """The layers that are stored as stacks, and the names of their entries."""

    __slots__ = ()

    @property
    def first(self) -> range:
        """The layers of the first repeat."""
        return range(self.start, self.start + self.period)

    @property
    def stop(self) -> int:
        """The layer after the last repeat."""
        return self.start + self.period * self.repeats

    def members(self, name: str) -> list[str]:
        """Lists the names that an entry stands for: those of all repeats, or its own if it is not a stack."""
        match = LAYER.search(name)
        if not match or int(match[1]) not in self.first:
            return [name]
        layers = range(int(match[1]), self.stop, self.period)
        return [f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}" for layer in layers]

    def _is_repeat(self, name: str) -> bool:
        """Tells whether an entry is of a later repeat, and so part of a stack under another name."""
        match = LAYER.search(name)
        return bool(match) and int(match[1]) in range(self.first.stop, self.stop)

    def is_stacked(self, name: str) -> bool:
        """Tells whether an entry is a stack."""
        return len(self.members(name)) > 1

    def split(self, entries: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Splits entries into stacks and others."""
        stacked = {name: value for name, value in entries.items() if self.is_stacked(name)}
        return stacked, {name: value for name, value in entries.items() if name not in stacked}

    def stacked(self, values: Params) -> Params:
        """Makes stacks of the arrays of single layers, and removes these from `values`: two copies never exist."""
        entries = {}
        for name in [name for name in values if not self._is_repeat(name)]:
            parts = [values.pop(member) for member in self.members(name)]
            entries[name] = parts[0] if len(parts) == 1 else jnp.stack(parts)
        return entries

    def unstacked(self, entries: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Splits stacks into the arrays of single layers."""
        values: dict[str, AnyArray] = {}
        for name, value in entries.items():
            members = self.members(name)
            values |= {name: value} if len(members) == 1 else dict(zip(members, value, strict=True))
        return dict(sorted(values.items()))

    def in_use(self, layers: Sequence[nnx.Module]) -> bool:
        """Tells whether layers are bound to stacks: then only the first repeat has arrays."""
        if not self.repeats:
            return False
        last = jax.tree.leaves(nnx.state(layers[self.stop - 1], nnx.Param))
        return any(isinstance(value, jax.ShapeDtypeStruct) for value in last)


def find(layers: Sequence[nnx.Module]) -> Stack:
    """Finds the stack of most layers, with the shortest period. Layers repeat if they differ in values alone."""
    kinds: list = []
    kind_of = []
    for layer in layers:
        kind = _kind(layer)
        kind_of.append(kinds.index(kind) if kind in kinds else len(kinds))
        kinds += [kind] if kind not in kinds else []
    return Stack(*repetition(kind_of))


def _kind(layer: nnx.Module) -> tuple:
    """Describes a layer without the values of its parameters and constants."""
    graph, declared, constants = nnx.split(layer, nnx.Param, ...)
    leaves = jax.tree_util.tree_leaves_with_path((declared, constants))
    return graph, [(path, leaf.shape, leaf.dtype) for path, leaf in leaves]


def at(values: Any, index: Array) -> Any:
    """Returns the arrays of one repeat."""
    return jax.tree.map(lambda x: dynamic_index_in_dim(x, index, keepdims=False), values)


def repeated(stack: Stack, layers: Sequence[nnx.Module]) -> tuple[list[Any], list[Callable[[Any, Array], nnx.Module]]]:
    """Splits each layer of the period into its parameters, which are stacks, and a function that makes a layer.

    The function takes the parameters of one repeat, and the number of the repeat.
    """
    parts = [_parts(layers[layer : stack.stop : stack.period]) for layer in stack.first]
    return [stacks for stacks, _ in parts], [layer_at for _, layer_at in parts]


def _parts(repeats: Sequence[nnx.Module]) -> tuple[Any, Callable[[Any, Array], nnx.Module]]:
    graph, stacks, constants = nnx.split(repeats[0], nnx.Param, ...)
    by_repeat = [jax.tree.leaves(nnx.split(layer, nnx.Param, ...)[2]) for layer in repeats]
    structure = jax.tree.structure(constants)

    def constant(values: Sequence[np.ndarray], repeat: Array) -> Array | np.ndarray:
        same = all(np.array_equal(value, values[0]) for value in values)
        return values[0] if same else at(jnp.stack(values), repeat)

    def layer_at(params: Any, repeat: Array) -> nnx.Module:
        leaves = [constant(values, repeat) for values in zip(*by_repeat, strict=True)]
        return nnx.merge(graph, params, jax.tree.unflatten(structure, leaves))

    return stacks, layer_at


def init(stack: Stack, optimizer: Optimizer, params: Params) -> OptimState:
    """Makes an optimizer's first state for parameters, some of which are stacks. Each layer has its own state."""
    stacked, single = stack.split(params)
    if not stacked:
        return optimizer.init(single)
    state = jax.vmap(optimizer.init)(stacked)
    shared = {name: value[0] for name, value in state.items() if not stack.is_stacked(name)}
    return state | shared | (optimizer.init(single) if single else {})


def update(
    stack: Stack,
    optimizer: Optimizer,
    grads: Params,
    state: OptimState,
    params: Params,
    lr: Array,
    scaled: Callable[[Array], Array],
    finite: Array,
) -> tuple[Params, OptimState]:
    """Does one update, of each layer of a stack alone and in place. Returns the parameters and the optimizer's state.

    Args:
      stack: names the entries that are stacks.
      optimizer: updates single layers.
      grads: gradients, some of stacks.
      state: the optimizer's state, from `init`.
      params: the parameters before the update.
      lr: the schedule's learning rate.
      scaled: scales a gradient for the optimizer.
      finite: whether to update; if not, everything stays as it is.
    """
    (grads, single_grads), (params, single_params) = stack.split(grads), stack.split(params)
    moments, single_state = stack.split(state)
    updated, moved = optimizer.update(_each(scaled, single_grads), single_state, single_params, lr)
    kept = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
    updated, moved = jax.tree.map(kept, (updated, moved), (single_params, single_state))
    if not params:
        return updated, moved

    def layer(index: Array, stacks: tuple[Params, OptimState]) -> tuple[Params, OptimState]:
        def new(old: Params, before: OptimState, slope: Params) -> tuple[Params, OptimState]:
            new, after = optimizer.update(_each(scaled, slope), single_state | before, old, lr)
            return new, {name: after[name] for name in before}

        # A condition: for a choice between values XLA would copy whole stacks, as it reads what it writes over.
        parts = jax.lax.cond(finite, new, lambda old, before, slope: (old, before), *at((*stacks, grads), index))
        return jax.tree.map(lambda whole, part: whole.at[index].set(part), stacks, parts)

    params, moments = jax.lax.fori_loop(0, stack.repeats, layer, (params, moments))
    return updated | params, moved | moments


def _each(function: Callable[[Array], Array], values: Mapping[str, Array]) -> dict[str, Array]:
    return {name: function(value) for name, value in values.items()}
