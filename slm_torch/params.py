"""Parameters: declared without storage, then filled from `slm_core.model.initialization` by canonical name."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from slm_core.model.initialization import Spec, initial_value
from slm_core.quantization.formats import dequantised, stored

_Model = TypeVar("_Model", bound=nn.Module)


def declare(shape: tuple[int, ...], spec: Spec) -> nn.Parameter:
    """Declares a parameter with a shape and a spec but no storage."""
    dtype = getattr(torch, spec.dtype) if spec.dtype else None
    return with_spec(torch.empty(shape, dtype=dtype, device="meta"), spec)


def spec_of(parameter: nn.Parameter) -> Spec:
    """Returns the spec that a parameter was declared with."""
    # pyrefly: ignore[missing-attribute]  a Parameter takes any attribute, but its type does not say so
    return parameter.spec


def set_spec(parameter: nn.Parameter, spec: Spec) -> None:
    """Gives a parameter another spec."""
    # pyrefly: ignore[missing-attribute]  see `spec_of`
    parameter.spec = spec


def with_spec(value: torch.Tensor, spec: Spec) -> nn.Parameter:
    """Makes a parameter of a tensor and a spec."""
    parameter = nn.Parameter(value, requires_grad=spec.role != "frozen")
    set_spec(parameter, spec)
    return parameter


def specs(model: nn.Module) -> dict[str, tuple[tuple[int, ...], Spec]]:
    """Lists {canonical name: (shape, spec)} of a model's parameters, in the model's order."""
    return {name: (tuple(p.shape), spec_of(p)) for name, p in model.named_parameters()}


def initialise(model: _Model, seed: int, dtype: torch.dtype, device: torch.device) -> _Model:
    """Gives every declared parameter of `model` its initial value and returns the model on `device`."""
    values = (
        (name, initial_value(name, shape, spec, seed)) for name, (shape, spec) in dequantised(specs(model)).items()
    )
    return fill(model, values, dtype, device)


def fill(model: _Model, values: Iterable[tuple[str, np.ndarray]], dtype: torch.dtype, device: torch.device) -> _Model:
    """Gives each declared parameter its storage and value, one at a time, and returns the model on `device`.

    Args:
      model: with declared parameters.
      values: (canonical name, floating array) of the parameters that `slm_core.quantization.formats.dequantised` lists.
      dtype: of the parameters that are not quantised.
      device: of the parameters.
    """
    for name, value in stored(values, specs(model), np.dtype(str(dtype).removeprefix("torch."))):
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, leaf, with_spec(torch.tensor(value, device=device), spec_of(getattr(module, leaf))))
    return model.to(device)


def allocate(model: _Model, dtype: torch.dtype, device: torch.device) -> _Model:
    """Does what `initialise` does, without values: each parameter is as it is stored, and holds anything."""
    for name, (shape, spec) in specs(model).items():
        path, _, leaf = name.rpartition(".")
        stored_as = getattr(torch, spec.dtype) if spec.dtype else dtype
        setattr(model.get_submodule(path), leaf, with_spec(torch.empty(shape, dtype=stored_as, device=device), spec))
    return model


def host_copy(tensor: torch.Tensor, dtype: torch.dtype | None = None, into: np.ndarray | None = None) -> np.ndarray:
    """Copies a tensor to the host, as a dtype. Its memory is NumPy's, which is taken in large pages, and so faster.

    Args:
      tensor: of any shape.
      dtype: of the copy; None: the tensor's.
      into: an earlier copy of the same tensor, to write over; None: take new memory.
    """
    if into is None:
        into = np.empty(tuple(tensor.shape), str(dtype or tensor.dtype).removeprefix("torch."))
    torch.from_numpy(into).copy_(tensor.detach())
    return into


def load(tensors: Mapping[str, torch.Tensor], values: Mapping[str, np.ndarray]) -> None:
    """Copies `values` into `tensors`, both by name."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(values[name])))
