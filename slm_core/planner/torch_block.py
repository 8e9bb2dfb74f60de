"""The PyTorch twin's block as a graph of sizes: a mixer and an MLP on the residual stream. See `torch_layers`."""

from slm_core.config import Model
from slm_core.config.layers import LayerSpec
from slm_core.planner.graph import Graph, Value
from slm_core.planner.mixers import Measured
from slm_core.planner.torch_attention import ATTENTION, Heads
from slm_core.planner.torch_layers import Step, norm
from slm_core.planner.torch_mlp import mlp


def dropout(graph: Graph, s: Step, model: Model, x: Value) -> Value:
    """Adds dropout. Its mask is computed from 64-bit indices and 32-bit hashes, and kept as bytes."""
    if not model.dropout:
        return x
    elements = x.size // s.compute
    y = graph.op([x], x.size)
    return graph.op([y], x.size, extra=elements, forward=16 * elements)


class Stream:
    """The values that one block hands to the next.

    Attributes:
      x: the residual stream.
      first_values: the first layer's values, if a later layer mixes them in.
      added: the terms that the layers so far add to the loss.
    """

    def __init__(self, x: Value):
        self.x = x
        self.first_values: Value | None = None
        self.added: list[Value] = []


def block(
    graph: Graph,
    s: Step,
    path: str,
    layer: LayerSpec,
    stream: Stream,
    gives_values: bool,
    mixer: Measured | None,
) -> None:
    """Adds a block.

    Args:
      gives_values: later layers mix this one's values into theirs.
      mixer: what takes the place of attention.
    """

    def normed(name: str, x: Value) -> Value:
        return norm(graph, s, f"{path}.{name}", layer.norm, x, s.tokens)

    def mix(x: Value) -> Value:
        if mixer is not None:
            return dropout(graph, s, layer, measured(graph, s, f"{path}.mixer", mixer, x))
        heads = Heads(graph, s, f"{path}.attention", layer, stream.first_values)
        y, values = ATTENTION[layer.attention.kind](heads, x)
        if gives_values:
            stream.first_values = values
            graph.exports.append(values)
        return dropout(graph, s, layer, y)

    def feed(x: Value) -> Value:
        y, auxiliary_loss = mlp(graph, s, f"{path}.mlp", layer, x)
        if auxiliary_loss is not None:
            stream.added.append(auxiliary_loss)
            graph.exports.append(auxiliary_loss)
        return dropout(graph, s, layer, y)

    def add(x: Value, y: Value) -> Value:
        if layer.residual_multiplier != 1:
            y = graph.op([y], y.size)
        return graph.op([x, y], x.size, passes=(x, y))

    stream.x = PLACEMENT[layer.norm.placement](stream.x, normed, mix, feed if layer.mlp.kind != "none" else None, add)


def measured(graph: Graph, s: Step, path: str, mixer: Measured, x: Value) -> Value:
    """Adds a mixer as two operations: the products with its matrices, and all the rest."""
    weights = [value for name, value in s.weights.items() if name.startswith(f"{path}.")]
    size = s.tokens * mixer.products * s.compute - x.size  # the last product makes the output
    inner = graph.op([x, *weights], size, saved=[x], product=True)
    memory = mixer.memory
    extra, work = max(memory.kept - size, 0), max(memory.backward - size, 0)
    return graph.op([inner], x.size, saved=[inner], extra=extra, forward=memory.forward, backward=work, product=True)


def _pre(x, normed, attend, feed, add):
    x = add(x, attend(normed("attention_norm", x)))
    return add(x, feed(normed("mlp_norm", x))) if feed else x


def _post(x, normed, attend, feed, add):
    x = normed("attention_norm", add(x, attend(x)))
    return normed("mlp_norm", add(x, feed(x))) if feed else x


def _sandwich(x, normed, attend, feed, add):
    x = add(x, normed("attention_output_norm", attend(normed("attention_norm", x))))
    return add(x, normed("mlp_output_norm", feed(normed("mlp_norm", x)))) if feed else x


def _output(x, normed, attend, feed, add):
    x = add(x, normed("attention_norm", attend(x)))
    return add(x, normed("mlp_norm", feed(x))) if feed else x


def _parallel(x, normed, attend, feed, add):
    mixed = add(x, attend(normed("attention_norm", x)))
    return add(mixed, feed(normed("mlp_norm", x))) if feed else mixed


def _parallel_shared(x, normed, attend, feed, add):
    y = normed("attention_norm", x)
    mixed = add(x, attend(y))
    return add(mixed, feed(y)) if feed else mixed


PLACEMENT = {
    "pre": _pre, "post": _post, "sandwich": _sandwich, "output": _output, "parallel": _parallel,
    "parallel_shared": _parallel_shared,
}  # fmt: skip
