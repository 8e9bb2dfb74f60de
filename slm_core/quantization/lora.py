"""Plans low-rank adapters (LoRA; Hu et al. 2021, https://arxiv.org/abs/2106.09685) and the storage of frozen matrices.

    y = x W + (alpha / rank) (x A) B + b,  A normal with variance 1 / in, B = 0

The paper draws A from a normal distribution and leaves the variance open. With 1 / in, x A is as large as x.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from slm_core.config import Config, Finetune
from slm_core.errors import UserError, nearest
from slm_core.model.initialization import Spec, initial_value
from slm_core.model.weights import Weights, checked
from slm_core.quantization import formats
from slm_core.quantization.formats import ADAPTER, Declared, Shape

HEAD = "head"
"""The path of the linear layer that is never quantised."""


@dataclasses.dataclass(frozen=True)
class AdapterPlan:
    """Which linear layers get an adapter, and how each frozen matrix is stored; layers are named by their paths.

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

    def summary(self, finetune: Finetune) -> str:
        """Returns one line that names each layer's place in the plan."""
        every = [*self.quantised, *self.floating]
        without = [path for path in every if path not in self.adapted]
        line = f"adapters of rank {finetune.rank} on {len(self.adapted)} of {len(every)} linear layers"
        line += f", none on {_short(without)}" if without else ""
        stored = [f"{len(self.quantised)} in {finetune.frozen}"] if self.quantised else []
        named = f" ({_short(self.floating)})" if self.quantised else ""
        stored += [f"{len(self.floating)} as floats{named}"] if self.floating else []
        stored += [f"{len(self.experts)} of experts as floats"] if self.experts else []
        return f"{line}; frozen: {', '.join(stored)}"


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
                f"{nearest(alternative, linears)}: they are {_short(linears)}"
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


def _short(paths: Iterable[str]) -> str:
    """Joins paths to one line; paths that differ only by the layer's number appear once."""
    return ", ".join(dict.fromkeys(re.sub(r"^layers\.\d+\.", "layers.*.", path) for path in paths))


def adapter(shape: Shape, rank: int) -> dict[str, tuple[Shape, Spec]]:
    """Declares the adapter of a matrix [in, out]: {last part of the name: (shape, spec)}."""
    a, b = ADAPTER
    return {a: ((shape[0], rank), Spec("matrix", std=shape[0] ** -0.5)), b: ((rank, shape[1]), Spec("matrix"))}


def facts(declared: Declared, plan: AdapterPlan | None, config: Config) -> dict[str, str]:
    """Returns lines for the start of a run about a model's parameters; `plan` is None if all of them train."""
    count = sum(math.prod(shape) for shape, _ in formats.dequantised(declared).values())
    if plan is None:
        return {"parameters": f"{count:,} in {config.precision.params}"}
    trained = sum(math.prod(shape) for shape, spec in declared.values() if spec.role != "frozen")
    return {
        "parameters": f"{count:,}, of which {trained:,} train, in {config.precision.params}",
        "fine-tuning": plan.summary(config.finetune),
    }


def frozen(spec: Spec) -> Spec:
    """Makes the spec of the same parameter when it does not train."""
    return dataclasses.replace(spec, role="frozen")


def starting(weights: Weights, declared: Declared, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of a model's dequantised parameters: first `weights`, then its adapters' initial values.

    Raises:
      UserError: a weight is missing, unknown or of another shape.
    """
    specs = formats.dequantised(declared)
    adapters = {name: spec for name, spec in specs.items() if name.rpartition(".")[2] in ADAPTER}
    yield from checked(weights, {name: shape for name, (shape, _) in specs.items() if name not in adapters})
    for name, (shape, spec) in adapters.items():
        yield name, initial_value(name, shape, spec, seed)
