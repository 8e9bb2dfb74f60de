"""Parameters: declared without storage, then filled from `slm_core.model.initialization` by canonical name."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from slm_core.model.initialization import Spec, initial_value
from slm_core.quantization.formats import held, plain

Model = TypeVar("Model", bound=nn.Module)


def declare(shape: tuple[int, ...], spec: Spec) -> nn.Parameter:
    """Returns a parameter with a shape and a spec but no storage."""
    dtype = getattr(torch, spec.dtype) if spec.dtype else None
    parameter = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=spec.role != "frozen")
    parameter.spec = spec
    return parameter


def specs(model: nn.Module) -> dict[str, tuple[tuple[int, ...], Spec]]:
    """Returns {canonical name: (shape, spec)} of a model, in its own order."""
    return {name: (tuple(p.shape), p.spec) for name, p in model.named_parameters()}


def initialise(model: Model, seed: int, dtype: torch.dtype, device: torch.device) -> Model:
    """Gives every declared parameter of `model` its initial value and returns the model on `device`."""
    values = ((name, initial_value(name, shape, spec, seed)) for name, (shape, spec) in plain(specs(model)).items())
    return fill(model, values, dtype, device)


def fill(model: Model, values: Iterable[tuple[str, np.ndarray]], dtype: torch.dtype, device: torch.device) -> Model:
    """Gives every declared parameter of `model` storage and the value of its name, one at a time, and returns the model
    on `device`.

    Args:
      values: floating, of the parameters that `slm_core.quantization.formats.plain` says.
    """
    for name, value in held(values, specs(model), np.dtype(str(dtype).removeprefix("torch."))):
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        spec = getattr(module, leaf).spec
        parameter = nn.Parameter(torch.tensor(value, device=device), requires_grad=spec.role != "frozen")
        parameter.spec = spec
        setattr(module, leaf, parameter)
    return model.to(device)


def load(tensors: Mapping[str, torch.Tensor], values: Mapping[str, np.ndarray]) -> None:
    """Copies `values` into `tensors`, both by name."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(values[name])))
