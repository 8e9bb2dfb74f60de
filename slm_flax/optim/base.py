"""Shared by the optimizers: the end of each chain, and the names of its state."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import optax
from jax import Array
from jax.tree_util import GetAttrKey, keystr

from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.params import Params

State = TypeVar("State")
Groups = Mapping[str, ParameterGroup]
Transformation = optax.GradientTransformation | optax.GradientTransformationExtraArgs

OptimState = dict[str, Array]
"""{"PART/NAME": array} of each parameter, and {"count": array, ...} that all share, as in a checkpoint."""

PARTS = {"mu": "m", "trace": "m", "nu": "v"}
"""{optax's name of a part of the state: the canonical name}. Every other part keeps its name."""


class Optimizer:
    """An optax transformation whose state is a flat dictionary by canonical name.

    Args:
      transformation: any of optax's. Its `update` gets the learning rate as the extra argument `lr`.
    """

    def __init__(self, transformation: Transformation):
        self.transformation = optax.with_extra_args_support(transformation)

    def init(self, params: Params) -> OptimState:
        """Makes the state before the first update."""
        tree = self.transformation.init(params)
        return dict(zip(names(tree), jax.tree.leaves(tree), strict=True))

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        """Does one update; returns the parameters and their state. `state` may have more entries than these need."""
        like = jax.eval_shape(self.transformation.init, params)
        entries = names(like)
        before = jax.tree.unflatten(jax.tree.structure(like), [state[name] for name in entries])
        updates, after = self.transformation.update(grads, before, params, lr=lr)
        updated: Any = optax.apply_updates(params, updates)
        return updated, dict(zip(entries, jax.tree.leaves(after), strict=True))


def names(tree: Any) -> list[str]:
    """Lists the canonical name of each array of an optax state.

    The last attribute on the way to an array is its part, and what follows is the parameter's name: ".mu['w']" is
    "m/w". A part that comes up again is numbered: "m.1/w".
    """
    seen: Counter[str] = Counter()
    canonical = []
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        at = max((i for i, key in enumerate(path) if isinstance(key, GetAttrKey)), default=-1)
        part = path[at].name if at >= 0 else "state"
        part, parameter = PARTS.get(part, part), "".join(f"/{keystr((key,), simple=True)}" for key in path[at + 1 :])
        again = seen[part + parameter]
        seen[part + parameter] += 1
        canonical.append(f"{part}.{again}{parameter}" if again else part + parameter)
    return canonical


def stateful(
    init: Callable[[Any], State], update: Callable[[Any, State, Any, Array], tuple[Any, State]]
) -> optax.GradientTransformationExtraArgs:
    """Makes an optax transformation of update(grads, state, params, lr)."""

    def begin(params: Any) -> Any:
        return init(params)

    def call(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return update(updates, state, params, extra_args["lr"])

    return optax.GradientTransformationExtraArgs(begin, call)


def stateless(update: Callable[[Params, Params, Array], Params]) -> optax.GradientTransformationExtraArgs:
    """Makes an optax transformation of update(grads, params, lr)."""
    return stateful(optax.init_empty_state, lambda grads, state, params, lr: (update(grads, params, lr), state))


def by_group(groups: Groups) -> optax.GradientTransformationExtraArgs:
    """Turns directions u into the updates -lr (lr_multiplier u + decay p): the end of an optimizer's chain."""

    def update(directions: Params, params: Params, lr: Array) -> Params:
        return {
            name: -lr * groups[name].decay * params[name] - lr * groups[name].lr_multiplier * u
            for name, u in directions.items()
        }

    return stateless(update)


def scheduled(transformation: Transformation) -> optax.GradientTransformationExtraArgs:
    """Multiplies a transformation's updates by the schedule's learning rate; its own learning rate must be 1."""
    return optax.chain(transformation, stateless(lambda updates, params, lr: jax.tree.map(lambda u: lr * u, updates)))
