"""Plans low-rank adapters (LoRA; Hu et al. 2021, https://arxiv.org/abs/2106.09685) and the storage of frozen matrices.

    y = x W + (alpha / rank) (x A) B + b,  A normal with variance 1 / in, B = 0

The paper draws A from a normal distribution and leaves the variance open. With 1 / in, x A is as large as x.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from slm_core.config import Finetune
from slm_core.errors import UserError, nearest
from slm_core.model.initialization import Spec, initial_value
from slm_core.model.weights import Weights, checked
from slm_core.quantization import formats
from slm_core.quantization.formats import ADAPTER, Declared, Shape

HEAD = "head"
"""The path of the linear layer that is never quantised."""


@dataclasses.dataclass(frozen=True)
class AdapterPlan:
    """Lists the linear layers with an adapter, and the format of each frozen matrix. A layer's name is its path.

    Args:
      adapted: layers with an adapter, the only parameters that train. Each is also in `quantised` or `floating`.
      quantised: layers whose matrix is stored as int8 or nf4.
      floating: layers whose matrix stays floating.
      experts: matrices of a mixture of experts, which are not linear layers: floating, and without an adapter.
    """

    adapted: tuple[str, ...]
    quantised: tuple[str, ...]
    floating: tuple[str, ...]
    experts: tuple[str, ...]


def plan_adapters(linears: Mapping[str, Shape], finetune: Finetune, experts: Iterable[str] = ()) -> AdapterPlan:
    """Plans which linear layers get an adapter, and how each matrix is stored.

    Args:
      linears: {path: shape of its matrix, [in, out]}, in the model's order.
      finetune: of kind lora.
      experts: paths of the matrices of a mixture of experts.

    Raises:
      UserError: finetune.targets is not a regular expression, or one of its alternatives matches no layer's path.
    """
    adapted = _matching(finetune.targets, linears)
    for alternative in alternatives(finetune.targets):
        if not _matching(alternative, linears):
            part = "" if alternative == finetune.targets else f": its alternative '{alternative}'"
            raise UserError(
                f"finetune.targets={finetune.targets}{part} matches the whole name of no linear layer"
                f"{nearest(alternative, linears)}: they are {short_paths(linears)}"
            )
    quantised = tuple(path for path, shape in linears.items() if path != HEAD and formats.fits(finetune.frozen, shape))
    floating = tuple(path for path in linears if path not in quantised)
    return AdapterPlan(adapted, quantised, floating, tuple(experts))


def alternatives(expression: str) -> list[str]:
    """Splits a regular expression at each `|` that is outside of all brackets."""
    parts, depth, i, start = [], 0, 0, 0
    in_set = False
    while i < len(expression):
        char = expression[i]
        if char == "\\":
            i += 1
        elif in_set:
            in_set = char != "]"
        elif char == "[":
            in_set = True
            i += expression[i + 1 : i + 2] == "^"
            i += expression[i + 1 : i + 2] == "]"  # a "]" that comes first is a member of the set
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and not depth:
            parts.append(expression[start:i])
            start = i + 1
        i += 1
    return [*parts, expression[start:]]


def _matching(expression: str, paths: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(path for path in paths if re.fullmatch(expression, path))
    except re.error as error:
        raise UserError(
            f"finetune.targets={expression} is not a regular expression ({error}): write one such as layers\\..*_proj"
        ) from None


def short_paths(paths: Iterable[str]) -> str:
    """Lists paths in one line. Those that differ by their layer's number alone come once."""
    return ", ".join(dict.fromkeys(re.sub(r"^layers\.\d+\.", "layers.*.", path) for path in paths))


def adapter(shape: Shape, rank: int) -> dict[str, tuple[Shape, Spec]]:
    """Declares the adapter of a matrix [in, out]: {last part of the name: (shape, spec)}."""
    a, b = ADAPTER
    return {a: ((shape[0], rank), Spec("matrix", std=shape[0] ** -0.5)), b: ((rank, shape[1]), Spec("matrix"))}


def frozen(spec: Spec) -> Spec:
    """Makes the spec of the same parameter when it does not train."""
    return dataclasses.replace(spec, role="frozen")


def starting(weights: Weights, declared: Declared, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of a model's dequantised parameters: first `weights`, then its adapters' initial values.

    Args:
      weights: with the adapters, if the model goes on with those of another.

    Raises:
      UserError: a weight is missing, unknown or of another shape.
    """
    specs = formats.dequantised(declared)
    fresh = {name: spec for name, spec in specs.items() if name.rpartition(".")[2] in ADAPTER and name not in weights}
    yield from checked(weights, {name: shape for name, (shape, _) in specs.items() if name not in fresh})
    for name, (shape, spec) in fresh.items():
        yield name, initial_value(name, shape, spec, seed)
