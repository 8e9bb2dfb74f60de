"""The PyTorch twin's attention as graphs of sizes: kernels, and what is around them. See `torch_layers`."""

from collections.abc import Callable
from dataclasses import dataclass

from slm_core.config.layers import LayerSpec
from slm_core.config.widths import query_width, value_shape
from slm_core.planner.graph import Graph, Value
from slm_core.planner.torch_layers import Step, cast, linear, multiply, qk_norm, rmsnorm, rope

CPU_TILE, GPU_TILE = 128, 256
"""Queries, and keys, of a tile: `TILE` and `GPU_TILE` of `slm_torch.layers.flash`."""


def tile(s: Step) -> int:
    """Returns the queries, and keys, of a tile of flash attention."""
    return GPU_TILE if s.gpu else CPU_TILE


def flash(graph: Graph, s: Step, layer: LayerSpec, q: Value, k: Value, v: Value, heads: int, out: int) -> Value:
    per_row = s.tokens * heads * s.wide
    # For each head, the scores of a tile of queries with a tile of keys.
    scores = s.batch * heads * min(tile(s), s.time) ** 2 * s.wide
    copies = q.size + k.size + v.size  # rearranged head by head
    return graph.op(
        [q, k, v], out, saved=[q, k, v], saves_output=True, extra=per_row,
        forward=copies + 2 * scores,
        backward=copies + out + q.size // s.compute * s.wide + 2 * per_row + 2 * scores,
    )  # fmt: skip


def tiled(layer: LayerSpec) -> bool:
    """Returns whether `flash` computes the attention. Its output is laid out head by head."""
    lacking = layer.attention.softcap or layer.attention.sinks
    return layer.attention.kernel == "flash" or bool(layer.attention.kernel == "fused" and lacking)


def fused(graph: Graph, s: Step, layer: LayerSpec, q: Value, k: Value, v: Value, heads: int, out: int) -> Value:
    if tiled(layer):
        return flash(graph, s, layer, q, k, v, heads, out)
    if layer.position.kind in BIASED:  # PyTorch computes all scores, with keys and values repeated for every head
        pairs = s.batch * heads * s.time**2 * s.compute
        q, k, v = graph.op([q], q.size), graph.op([k], q.size), graph.op([v], out)
        scores = graph.op([graph.op([q, k], pairs, saved=[q, k])], pairs)
        weights = graph.op([scores], pairs, saves_output=True)
        y = graph.op([weights, v], out, saved=[weights, v])
        return graph.op([y], out, passes=(y,))
    if s.gpu and k.size < q.size:  # kernels for older cards and for float32 need repeated keys and values
        k, v = graph.op([k], q.size), graph.op([v], out)
    mask = s.time**2 if layer.attention.window else 0
    if s.masked:  # PyTorch's kernels add it to the scores, in their dtype
        mask = s.batch * s.time**2 * s.compute
    return graph.op([q, k, v], out, saved=[q, k, v], saves_output=True, extra=s.tokens * heads * s.wide + mask)


def dot_product(graph: Graph, s: Step, layer: LayerSpec, q: Value, k: Value, v: Value, heads: int, out: int) -> Value:
    pairs = s.batch * heads * s.time**2
    distance = graph.op([], 8 * s.time**2)
    q, k = graph.op([q], q.size, passes=(q,)), graph.op([k], q.size)
    scores = cast(graph, graph.op([q, k], pairs * s.compute, saved=[q, k]), pairs * s.wide)
    scores = graph.op([scores], scores.size)
    if layer.attention.softcap:
        scores = graph.op([graph.op([scores], scores.size)], scores.size, saves_output=True)
        scores = graph.op([scores], scores.size)
    mask = s.time**2 * (s.batch if s.masked else 1)
    if layer.position.kind in BIASED:
        learned = layer.position.kind == "t5"
        scores = graph.op([scores], scores.size, passes=(scores,), extra=8 * s.time**2 if learned else 0)
    scores = graph.op([scores], scores.size, extra=mask)
    if layer.attention.sinks:
        scores = graph.op([scores], scores.size)
    weights = graph.op([scores], scores.size, saves_output=True)
    weights = cast(graph, graph.op([weights], weights.size), pairs * s.compute)
    v = graph.op([v], out)
    y = graph.op([weights, v, distance], out, saved=[weights, v])
    return graph.op([y], out, passes=(y,))


BIASED = ("alibi", "t5")
"""Kinds of position that add a bias to the scores."""
POSITIONS = ("rope", *BIASED, "learned", "sinusoidal", "none")
KERNEL = {"dot_product": dot_product, "flash": flash, "fused": fused}


@dataclass(frozen=True)
class Heads:
    """Adds the steps that every kind of attention has in common.

    Args:
      path: canonical name of the attention.
      first_values: the first layer's values, if this layer mixes them in; else None.
    """

    graph: Graph
    s: Step
    path: str
    layer: LayerSpec
    first_values: Value | None

    def project(self, name: str, x: Value) -> Value:
        return linear(self.graph, self.s, f"{self.path}.{name}", x, self.s.tokens)

    def placed(self, name: str, x: Value, heads: int) -> Value:
        """Adds QK-norm and RoPE."""
        rows = self.s.tokens * heads
        x = qk_norm(self.graph, self.s, f"{self.path}.{name}", self.layer, x, rows)
        return rope(self.graph, self.s, self.layer, x, rows)

    def mixed(self, v: Value) -> Value:
        if f"{self.path}.value_residual.weight" not in self.s.weights or self.first_values is None:
            return v
        pair = (v, self.first_values)
        scaled, first_scaled = (self.graph.op([x], x.size, saved=[x], backward=x.size) for x in pair)
        return self.graph.op([scaled, first_scaled], v.size, passes=(scaled, first_scaled))

    def attend(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        out = self.s.tokens * heads * value_shape(self.layer.attention)[1] * self.s.compute
        return KERNEL[self.layer.attention.kernel](self.graph, self.s, self.layer, q, k, v, heads, out)

    def output(self, y: Value, x: Value) -> Value:
        if self.layer.attention.gate != "none":
            gate = self.project("gate.gate_proj", x)
            y = multiply(self.graph, y, self.graph.op([gate], gate.size, saves_output=True))
        if tiled(self.layer):
            y = self.graph.op([y], y.size, passes=(y,))
        return self.project("o_proj", y)


def gqa(h: Heads, x: Value) -> tuple[Value, Value]:
    """Adds grouped-query attention and returns its output and its values."""
    attention = h.layer.attention
    q, k, v = h.project("q_proj", x), h.project("k_proj", x), h.project("v_proj", x)
    q, k = h.placed("q_norm", q, attention.n_heads), h.placed("k_norm", k, attention.n_kv_heads)
    return h.output(h.attend(q, k, h.mixed(v), attention.n_heads), x), v


def differential(h: Heads, x: Value) -> tuple[Value, Value]:
    attention = h.layer.attention
    q, k, v = h.project("q_proj", x), h.project("k_proj", x), h.project("v_proj", x)
    q, k = h.placed("q_norm", q, 2 * attention.n_heads), h.placed("k_norm", k, 2 * attention.n_kv_heads)
    mixed = h.mixed(v)
    ys = []
    for _ in range(2):  # the halves are views of q and k, and their gradients are as wide as q and k
        half_q, half_k = (h.graph.view(part, part.size // 2) for part in (q, k))
        ys.append(h.attend(half_q, half_k, mixed, attention.n_heads))
    scaled = h.graph.op([ys[1]], ys[1].size, saved=[ys[1]], backward=ys[1].size)
    y = h.graph.op([ys[0], scaled], scaled.size, passes=(ys[0],))
    y = rmsnorm(h.graph, h.s, f"{h.path}.head_norm", y, h.s.tokens * attention.n_heads)
    return h.output(h.graph.op([y], y.size), x), v


def mla(h: Heads, x: Value) -> tuple[Value, Value]:
    graph, s, attention = h.graph, h.s, h.layer.attention
    heads, rows = attention.n_heads, s.tokens * attention.n_heads
    latent = x
    if attention.q_rank:
        latent = rmsnorm(graph, s, f"{h.path}.q_latent_norm", h.project("q_down_proj", x), s.tokens)
    q = h.project("q_up_proj", latent)
    nope_size, rope_size = (rows * width * s.compute for width in (attention.head_dim, attention.rope_dim))
    q_nope, q_rope = graph.view(q, nope_size), graph.view(q, rope_size)
    q_nope = qk_norm(graph, s, f"{h.path}.q_norm", h.layer, q_nope, rows)
    latent = rmsnorm(graph, s, f"{h.path}.kv_latent_norm", h.project("kv_down_proj", x), s.tokens)
    k_rope = h.project("k_rope_proj", x)
    v = h.project("v_up_proj", latent)
    q_rope, k_rope = rope(graph, s, h.layer, q_rope, rows), rope(graph, s, h.layer, k_rope, s.tokens)
    mixed = h.mixed(v)
    k = qk_norm(graph, s, f"{h.path}.k_norm", h.layer, h.project("k_up_proj", latent), rows)
    size = rows * query_width(attention) * s.compute
    k = graph.op([k, k_rope], size, passes=(k,))
    q = graph.op([q_nope, q_rope], size, passes=(q_nope, q_rope))
    return h.output(h.attend(q, k, mixed, heads), x), v


ATTENTION: dict[str, Callable[[Heads, Value], tuple[Value, Value]]] = {
    "gqa": gqa, "mla": mla, "differential": differential,
}  # fmt: skip
