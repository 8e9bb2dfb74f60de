"""The PyTorch twin's layers as graphs of sizes: the same operations in the same order.

Each function is named as in the twin. It adds what each operation makes and what autograd saves for it. A count of
elements is written as rows * width. A row is a token, or one head of a token.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from slm_core.config import Norm
from slm_core.config.layers import LayerSpec
from slm_core.config.widths import rotated
from slm_core.planner.declarations import Parameter
from slm_core.planner.graph import Graph, Value


@dataclass(frozen=True)
class Step:
    """The sizes that all layers of a micro-batch share.

    Args:
      batch, time: sequences and their length.
      stored, compute, wide: bytes of one value of a parameter, of an activation, and of what is float32 or wider.
      weights: {canonical name: the parameter's value in the graph}.
      declared: {canonical name: the parameter's shape and role}.
      gpu: whether a GPU computes.
      masked: whether data.document_mask gives each sequence a mask and positions of its own.
    """

    batch: int
    time: int
    stored: int
    compute: int
    wide: int
    weights: Mapping[str, Value]
    declared: Mapping[str, Parameter]
    gpu: bool
    masked: bool

    @property
    def tokens(self) -> int:
        return self.batch * self.time


def cast(graph: Graph, x: Value, size: int) -> Value:
    """Adds a change of x to a dtype in which it takes `size` bytes; adds nothing if it takes that already."""
    return x if x.size == size else graph.op([x], size)


def weight(graph: Graph, s: Step, name: str, width: int) -> Value:
    """Adds a parameter's change to a dtype of `width` bytes per value."""
    return cast(graph, s.weights[name], s.declared[name].size * width)


def multiply(graph: Graph, x: Value, factor: Value) -> Value:
    """Adds x * factor. The factor is a vector of a row's width, or one number per row.

    The gradient of the factor is at first as large as x.
    """
    saved = ([x] if factor.graded else []) + ([factor] if x.graded else [])
    return graph.op([x, factor], x.size, saved=saved, backward=x.size if factor.graded else 0)


def linear(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    """Adds a linear layer, with its adapter if it has one."""
    y = _product(graph, s, path, x, rows)
    if f"{path}.lora_a" in s.weights:
        a, b = (weight(graph, s, f"{path}.{leaf}", s.compute) for leaf in ("lora_a", "lora_b"))
        inner = graph.op([x, a], rows * s.declared[f"{path}.lora_a"].shape[1] * s.compute, saved=[x, a], product=True)
        inner = graph.op([inner], inner.size)
        added = graph.op([inner, b], y.size, saved=[inner, b], product=True)
        y = graph.op([y, added], y.size, passes=(y, added))
    if f"{path}.bias" in s.weights:
        y = graph.op([y, weight(graph, s, f"{path}.bias", s.compute)], y.size, passes=(y,))
    return y


def _product(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    if f"{path}.codes" in s.weights:  # the matrix is dequantised, used and freed, forward and backward
        codes = s.declared[f"{path}.codes"]
        nf4 = codes.dtype == "uint8"  # two values per byte
        size, out = (count * (2 if nf4 else 1) for count in (codes.size, codes.shape[1]))
        dequantised = size * s.stored * (3 if nf4 else 2)
        return graph.op([x], rows * out * s.compute, forward=dequantised, backward=dequantised)
    w = weight(graph, s, f"{path}.weight", s.compute)
    saved = ([x] if w.graded else []) + ([w] if x.graded else [])
    return graph.op([x, w], rows * s.declared[f"{path}.weight"].shape[1] * s.compute, saved=saved, product=True)


def norm(graph: Graph, s: Step, path: str, config: Norm, x: Value, rows: int) -> Value:
    return NORM[config.kind](graph, s, path, x, rows)


def rmsnorm(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    size = x.size // s.compute * s.wide
    y = cast(graph, x, size)
    square = graph.op([y], size, saved=[y], backward=2 * size)
    root = graph.op([square], rows * s.wide, saves_output=True)
    y = multiply(graph, y, root)
    if f"{path}.weight" in s.weights:
        y = multiply(graph, y, weight(graph, s, f"{path}.weight", s.wide))
    return cast(graph, y, x.size)


def layernorm(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    y = cast(graph, x, x.size // s.compute * s.wide)
    leaves = [f"{path}.{leaf}" for leaf in ("weight", "bias") if f"{path}.{leaf}" in s.weights]
    y = graph.op([y, *(s.weights[name] for name in leaves)], y.size, saved=[y], extra=2 * rows * s.wide)
    return cast(graph, y, x.size)


def dyt(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    y = cast(graph, x, x.size // s.compute * s.wide)
    y = multiply(graph, y, s.weights[f"{path}.alpha"])
    y = graph.op([y], y.size, saves_output=True)
    y = multiply(graph, y, s.weights[f"{path}.weight"])
    if f"{path}.bias" in s.weights:
        y = graph.op([y, s.weights[f"{path}.bias"]], y.size, passes=(y,))
    return cast(graph, y, x.size)


NORM = {"layernorm": layernorm, "rmsnorm": rmsnorm, "dyt": dyt}


def l2norm(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    y = cast(graph, x, x.size // s.compute * s.wide)
    square = graph.op([y], y.size, saved=[y], backward=2 * y.size)
    return cast(graph, multiply(graph, y, graph.op([square], rows * s.wide, saves_output=True)), x.size)


def qk_norm(graph: Graph, s: Step, path: str, layer: LayerSpec, x: Value, rows: int) -> Value:
    kind = layer.attention.qk_norm
    return x if kind == "none" else {"rmsnorm": rmsnorm, "l2": l2norm}[kind](graph, s, f"{path}.norm", x, rows)


def rope(graph: Graph, s: Step, layer: LayerSpec, x: Value, rows: int) -> Value:
    if layer.position.kind != "rope":
        return x
    width = rotated(layer)
    turned = graph.op([x], rows * width * s.wide) if s.compute != s.wide else x
    half = rows * width // 2 * s.wide
    tables = (s.tokens if s.masked else s.time) * width * s.wide  # cosines and sines, narrowed from float64
    y = graph.op([turned], 2 * half, forward=2 * half, backward=2 * half, extra=tables)
    return graph.op([cast(graph, y, rows * width * s.compute), x], x.size, passes=(x,))
