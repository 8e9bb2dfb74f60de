"""Makes the tables of a page about a run."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_core.protocols import Module
from slm_core.studies.inspection.induction import HeadScores
from slm_core.studies.inspection.measure import Inside
from slm_core.studies.report import numbers
from slm_core.studies.report.tables import Table

INDENT = 2 * "\N{NO-BREAK SPACE}"
MOST_HEADS = 20
"""Heads of a table, at most."""


@dataclass(frozen=True)
class _Row:
    """A module of the tree, or several that are alike.

    Args:
      depth: modules around it.
      name: the last part of its path, or "layers.0 to layers.3".
      module: the first of those that it stands for.
      size: numbers in its parameters, those of modules inside it included.
      times: how many are alike.
    """

    depth: int
    name: str
    module: Module
    size: int
    times: int = 1


def modules_table(inside: Inside) -> Table:
    """Makes the tree of modules: each one's shapes, and what it costs. Layers in a row that are alike share rows."""
    rows = []
    for row in _tree(inside.modules):
        module = row.module
        rows.append(
            (
                INDENT * row.depth + row.name + (f", each of {row.times}" if row.times > 1 else ""),
                module.kind or "the embedding again",
                ", ".join(f"{name} {_shape(shape)}" for name, shape in module.parameters.items()) or numbers.MISSING,
                numbers.count(row.size) if row.size else numbers.MISSING,
                _bytes(row.size * inside.weight_bytes),
                numbers.flops(module.flops) if module.flops else numbers.MISSING,
                _shape(module.output),
                _bytes(module.output_bytes),
            )
        )
    head = ("module", "class", "own parameters", "parameters", "their memory", "FLOPs", "output", "its memory")
    return Table(f"The forward pass of one sequence of {inside.length} tokens", head, tuple(rows), (0, 1, 2))


def _tree(modules: Sequence[Module]) -> list[_Row]:
    """Returns the rows of the tree. Neighbouring layers of the same modules and shapes share their rows."""
    shown = [m for m in modules if m.kind != "Dropout"]
    rows = []
    for in_layers, group in itertools.groupby(shown, lambda m: m.path.startswith("layers.")):
        if not in_layers:
            rows += [_Row(_depth(m.path), m.path or "the model", m, _size(modules, m.path)) for m in group]
            continue
        layers = (list(each) for _, each in itertools.groupby(group, lambda m: m.path.split(".")[1]))
        for _, alike in itertools.groupby(layers, _shapes):
            (layer, *inside), *others = alike
            name = f"{layer.path} to {others[-1][0].path}" if others else layer.path
            rows.append(_Row(1, name, layer, _size(modules, layer.path), 1 + len(others)))
            rows += [_Row(_depth(m.path), m.path.rpartition(".")[2], m, _size(modules, m.path)) for m in inside]
    return rows


def _shapes(layer: Sequence[Module]) -> list[Module]:
    """Returns the modules of a layer without its number."""
    return [m._replace(path=".".join(m.path.split(".")[2:])) for m in layer]


def _depth(path: str) -> int:
    """Counts the modules around one: none around the model; a layer, "layers.3", is inside the model alone."""
    return 0 if not path else path.removeprefix("layers.").count(".") + 1


def _size(modules: Sequence[Module], path: str) -> int:
    """Counts the numbers in the parameters of a module and of those inside it."""
    inside = (m for m in modules if not path or m.path == path or m.path.startswith(f"{path}."))
    return sum(math.prod(shape) for m in inside for shape in m.parameters.values())


def heads_table(heads: Mapping[str, HeadScores]) -> Table:
    """Makes the table of the heads' scores at one checkpoint."""
    rows = [
        (f"{attention_name(path)}, head {head}", *values)
        for path, scores in heads.items()
        for head, values in enumerate(zip(scores.induction, scores.previous, scores.first, strict=True))
    ]
    caption = "Mean attention weight on random tokens that come twice"
    if len(rows) > MOST_HEADS:
        caption += f": the {MOST_HEADS} of {len(rows)} heads with the largest induction score"
        rows = sorted(rows, key=lambda row: row[1], reverse=True)[:MOST_HEADS]
    head = ("head", "induction", "previous token", "first token")
    return Table(caption, head, tuple((name, *(f"{value:.3f}" for value in values)) for name, *values in rows))


def norms_table(inside: Inside) -> Table:
    """Makes the table of what details.jsonl has of each layer at its last line."""
    last, rows = inside.details[-1], []
    for layer in inside.rms:
        rms = [last.get(f"activation_rms/{layer}{part}") for part in (".attention", ".mlp", "")]
        norms = [layer_norm(last, kind, layer) for kind in ("weight_norm", "gradient_norm")]
        rows.append((layer, *(_digits(value) for value in (*rms, *norms))))
    head = ("layer", "attention returns", "MLP returns", "stream after it", "weight norm", "gradient norm")
    return Table(f"At the update of step {last['step']}: root mean squares, and L2 norms", head, tuple(rows))


def streams_table(inside: Inside) -> Table:
    """Makes the table of the residual stream on the prompt, for a run that logged no details."""
    rows = tuple((layer, _digits(value)) for layer, value in inside.rms.items())
    return Table("Root mean square of the residual stream on the prompt", ("layer", "stream after it"), rows)


def layer_norm(line: Mapping[str, Any], kind: str, layer: str) -> float | None:
    """Computes the L2 norm of all parameters of a layer, or of their gradients; None: the line has none that is finite.

    Args:
      line: of details.jsonl.
      kind: "weight_norm" or "gradient_norm".
      layer: "layers.3".
    """
    values = [value for name, value in line.items() if name.startswith(f"{kind}/{layer}.")]
    return None if not values or None in values else math.sqrt(sum(value**2 for value in values))


def attention_name(path: str) -> str:
    """Names a softmax attention for the reader: "layer 3", or "layer 3, map 2" if the layer has two."""
    _, layer, *_, last = path.split(".")
    number = last.removeprefix("attend").removeprefix("_")
    return f"layer {layer}, map {number}" if number else f"layer {layer}"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _bytes(size: float) -> str:
    """Formats 12345 bytes as "12.3 kB"."""
    if not size:
        return numbers.MISSING
    number = numbers.count(size)
    digits = number.rstrip("EPTGMk")
    return f"{digits} {number[len(digits) :]}B"


def _digits(value: float | None) -> str:
    return f"{value:.3g}" if numbers.known(value) else numbers.MISSING
