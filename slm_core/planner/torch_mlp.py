"""The PyTorch twin's MLPs as graphs of sizes. See `torch_layers`."""

from dataclasses import replace

from slm_core.config.layers import LayerSpec, MlpSpec
from slm_core.planner.graph import Graph, Value
from slm_core.planner.torch_layers import Step, cast, linear, multiply


def gelu(graph: Graph, up: Value) -> Value:
    return graph.op([up], up.size, saved=[up])


def relu(graph: Graph, up: Value) -> Value:
    return graph.op([up], up.size, saves_output=True)


def relu2(graph: Graph, up: Value) -> Value:
    y = graph.op([up], up.size, saves_output=True)
    return graph.op([y], y.size, saved=[y], backward=2 * y.size)


def swiglu(graph: Graph, gate: Value, up: Value) -> Value:
    gate = graph.op([gate], gate.size, saved=[gate])
    return graph.op([gate, up], gate.size, saved=[gate, up])


def clipped_swiglu(graph: Graph, gate: Value, up: Value) -> Value:
    gate, up = (graph.op([x], x.size, saved=[x], backward=x.size // 4) for x in (gate, up))
    share = graph.op([graph.op([gate], gate.size)], gate.size, saves_output=True)
    gate = graph.op([gate, share], gate.size, saved=[gate, share])
    up = graph.op([up], up.size, passes=(up,))
    return graph.op([gate, up], gate.size, saved=[gate, up])


ACTIVATION = {
    "gelu": gelu, "relu": relu, "relu2": relu2, "swiglu": swiglu, "geglu": swiglu, "clipped_swiglu": clipped_swiglu,
}  # fmt: skip
"""{kind: its activation, of the result of up_proj, or of those of gate_proj and up_proj}."""


def mlp(graph: Graph, s: Step, path: str, layer: LayerSpec, x: Value) -> tuple[Value, Value | None]:
    """Adds an MLP and returns its output and its auxiliary loss, which dense kinds lack."""
    if layer.mlp.kind == "moe":
        return moe(graph, s, path, layer.mlp, x)
    return dense(graph, s, path, layer.mlp.kind, x), None


def dense(graph: Graph, s: Step, path: str, kind: str, x: Value) -> Value:
    inner = [linear(graph, s, f"{path}.{name}", x, s.tokens) for name in _inputs(s, path)]
    return linear(graph, s, f"{path}.down_proj", ACTIVATION[kind](graph, *inner), s.tokens)


def moe(graph: Graph, s: Step, path: str, config: MlpSpec, x: Value) -> tuple[Value, Value]:
    pairs = s.tokens * config.top_k
    logits = _router(graph, s, path, x)
    scores = graph.op([logits], logits.size, saves_output=True)
    auxiliary_loss = graph.op([graph.op([logits], logits.size, saves_output=True)], 0, extra=logits.size)
    indices = 8 * pairs
    rows = graph.op([x], x.size * config.top_k)  # repeated, then in the order of their experts
    rows = graph.op([rows], rows.size, extra=2 * indices)
    inner = [_experts(graph, s, f"{path}.{name}", rows, pairs) for name in reversed(_inputs(s, path))][::-1]
    y = _experts(graph, s, f"{path}.down_proj", ACTIVATION[config.expert](graph, *inner), pairs)
    y = graph.op([y], y.size, extra=indices)
    chosen = graph.op([scores], pairs * s.wide, extra=indices)
    y = graph.op([multiply(graph, y, cast(graph, chosen, pairs * s.compute))], x.size)
    if config.shared_experts:
        shared = dense(graph, s, f"{path}.shared", config.expert, x)
        if config.shared_gate:
            gate = linear(graph, s, f"{path}.shared_gate", x, s.tokens)
            shared = multiply(graph, shared, graph.op([gate], gate.size, saves_output=True))
        y = graph.op([y, shared], y.size, passes=(y, shared))
    return y, auxiliary_loss


def _inputs(s: Step, path: str) -> list[str]:
    """Returns the names of the matrices that read the MLP's input."""
    return ["gate_proj", "up_proj"] if any(name.startswith(f"{path}.gate_proj.") for name in s.weights) else ["up_proj"]


def _router(graph: Graph, s: Step, path: str, x: Value) -> Value:
    """Adds the router's product and returns its logits, float32 or wider."""
    wider = replace(s, compute=s.wide)
    return linear(graph, wider, f"{path}.router", cast(graph, x, x.size // s.compute * s.wide), s.tokens)


def _experts(graph: Graph, s: Step, path: str, x: Value, rows: int) -> Value:
    """Adds the products of the rows with the matrices of their experts, joined. Their gradients are joined as well."""
    name = f"{path}.weight"
    w = s.weights[name]
    size = s.declared[name].size * s.compute
    out = rows * s.declared[name].shape[2] * s.compute
    pieces = graph.view(x, x.size)
    matrices = graph.view(cast(graph, w, size), size)
    saved = ([pieces] if w.graded else []) + ([matrices] if x.graded else [])
    y = graph.op([pieces, matrices], out, saved=saved, product=True)
    if f"{path}.bias" in s.weights:
        y = graph.op([y, s.weights[f"{path}.bias"]], out, passes=(y,))
    return graph.op([y], out, passes=(y,))
