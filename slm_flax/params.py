"""Parameters: declared without storage, then filled from `slm_core.model.initialization` by canonical name."""

from collections.abc import Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from slm_core.model.initialization import Spec, initial_value
from slm_core.quantization.formats import dequantised, stored

Params = dict[str, jax.Array]
_Model = TypeVar("_Model", bound=nnx.Module)


def declare(shape: tuple[int, ...], spec: Spec) -> nnx.Param:
    """Declares a parameter with a shape and a spec but no storage."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, spec.dtype or jnp.float32), spec=spec)


def specs(model: nnx.Module) -> dict[str, tuple[tuple[int, ...], Spec]]:
    """Lists {canonical name: (shape, spec)} of a model's parameters, in the model's order."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {canonical(path): (tuple(p.get_value().shape), p.get_metadata()["spec"]) for path, p in state}


def initialise(model: nnx.Module, seed: int, dtype: np.dtype) -> Params:
    """Makes the initial value of every declared parameter of `model`, by canonical name."""
    values = (
        (name, initial_value(name, shape, spec, seed)) for name, (shape, spec) in dequantised(specs(model)).items()
    )
    return fill(model, values, dtype)


def fill(model: nnx.Module, values: Iterable[tuple[str, np.ndarray]], dtype: np.dtype) -> Params:
    """Makes the value of each declared parameter, by canonical name, one at a time.

    Args:
      model: with declared parameters.
      values: (canonical name, floating array) of the parameters that `slm_core.quantization.formats.dequantised` lists.
      dtype: of the parameters that are not quantised.
    """
    return {name: jnp.array(value) for name, value in stored(values, specs(model), dtype)}


def moving(model: nnx.Module, params: Params) -> Params:
    """Selects the parameters of a model that are not frozen."""
    return {name: params[name] for name, (_, spec) in specs(model).items() if spec.role != "frozen"}


def bind(model: _Model, params: Params) -> _Model:
    """Makes a copy of a module with `params` (canonical name: array) in the place of its declared parameters.

    A layer whose arrays are in a stack (see `slm_flax.stack`) stays without storage.
    """
    graph, declared, constants = nnx.split(model, nnx.Param, ...)
    filled = [
        (path, variable.replace(params.get(canonical(path), variable.get_value())))
        for path, variable in nnx.to_flat_state(declared)
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled), constants)


def on_cpu(array: jax.Array) -> bool:
    """Tells whether an array is on a CPU. NumPy then shows the buffer itself, which the next update writes over."""
    return any(device.platform == "cpu" for device in array.devices())


def canonical(path: tuple) -> str:
    """Makes the canonical name of a path in an NNX state."""
    return ".".join(str(part) for part in path)
