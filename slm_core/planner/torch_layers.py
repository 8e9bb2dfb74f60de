"""The PyTorch twin's layers on a tape: the same operations in the same order, with sizes instead of tensors.

Each function is named as in the twin and writes down what each of its operations makes and what autograd saves for it.
A count of elements is written as rows * width; a row is a token, or a token's head.
"""

from collections.abc import Callable
from dataclasses import dataclass

from slm_core.config import Model, Norm
from slm_core.config.widths import query_width, rotated, value_shape
from slm_core.planner.parameters import Parameter
from slm_core.planner.tape import Tape, Value

CPU_TILE, GPU_TILE = 128, 256
"""Of `slm_torch.layers.flash`."""


@dataclass(frozen=True)
class Step:
    """What all layers of a micro-batch share.

    Args:
      batch, time: sequences and their length.
      stored, compute, wide: bytes of a parameter, of an activation, and of what is float32 or wider.
      weights: {canonical name: value}.
      shapes: {canonical name: parameter}.
      gpu: whether a GPU computes.
    """

    batch: int
    time: int
    stored: int
    compute: int
    wide: int
    weights: dict[str, Value]
    shapes: dict[str, Parameter]
    gpu: bool

    @property
    def tile(self) -> int:
        """Queries, and keys, of a tile of flash attention."""
        return GPU_TILE if self.gpu else CPU_TILE

    @property
    def tokens(self) -> int:
        return self.batch * self.time


def cast(tape: Tape, x: Value, size: int) -> Value:
    """A change of dtype to one in which x takes `size` bytes; of a parameter, whose own size it is, none."""
    return x if x.size == size else tape.op([x], size)


def weight(tape: Tape, s: Step, name: str, width: int) -> Value:
    """A parameter in a dtype of `width` bytes."""
    return cast(tape, s.weights[name], s.shapes[name].size * width)


def multiply(tape: Tape, x: Value, factor: Value) -> Value:
    """x * factor, factor a vector of a row's width or a number a row: its gradient is first as large as x."""
    saved = ([x] if factor.graded else []) + ([factor] if x.graded else [])
    return tape.op([x, factor], x.size, saved=saved, backward=x.size if factor.graded else 0)


def linear(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    """Linear, LoRA's included."""
    y = _product(tape, s, path, x, rows)
    if f"{path}.lora_a" in s.weights:
        a, b = (weight(tape, s, f"{path}.{leaf}", s.compute) for leaf in ("lora_a", "lora_b"))
        inner = tape.op([x, a], rows * s.shapes[f"{path}.lora_a"].shape[1] * s.compute, saved=[x, a], product=True)
        inner = tape.op([inner], inner.size)
        added = tape.op([inner, b], y.size, saved=[inner, b], product=True)
        y = tape.op([y, added], y.size, passes=(y, added))
    if f"{path}.bias" in s.weights:
        y = tape.op([y, weight(tape, s, f"{path}.bias", s.compute)], y.size, passes=(y,))
    return y


def _product(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    if f"{path}.codes" in s.weights:  # the matrix is made, used and dropped, forward and backward
        codes = s.shapes[f"{path}.codes"]
        size = codes.size * (2 if codes.dtype == "uint8" else 1)
        out = codes.shape[1] * (2 if codes.dtype == "uint8" else 1)
        made = size * (s.stored * (3 if codes.dtype == "uint8" else 2))
        return tape.op([x], rows * out * s.compute, forward=made, backward=made)
    w = weight(tape, s, f"{path}.weight", s.compute)
    saved = ([x] if w.graded else []) + ([w] if x.graded else [])
    return tape.op([x, w], rows * s.shapes[f"{path}.weight"].shape[1] * s.compute, saved=saved, product=True)


def norm(tape: Tape, s: Step, path: str, config: Norm, x: Value, rows: int) -> Value:
    return NORM[config.kind](tape, s, path, x, rows)


def rmsnorm(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    size = x.size // s.compute * s.wide
    y = cast(tape, x, size)
    square = tape.op([y], size, saved=[y], backward=2 * size)
    root = tape.op([square], rows * s.wide, own=True)
    y = multiply(tape, y, root)
    if f"{path}.weight" in s.weights:
        y = multiply(tape, y, weight(tape, s, f"{path}.weight", s.wide))
    return cast(tape, y, x.size)


def layernorm(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    y = cast(tape, x, x.size // s.compute * s.wide)
    leaves = [f"{path}.{leaf}" for leaf in ("weight", "bias") if f"{path}.{leaf}" in s.weights]
    y = tape.op([y, *(s.weights[name] for name in leaves)], y.size, saved=[y], extra=2 * rows * s.wide)
    return cast(tape, y, x.size)


def dyt(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    y = cast(tape, x, x.size // s.compute * s.wide)
    y = multiply(tape, y, s.weights[f"{path}.alpha"])
    y = tape.op([y], y.size, own=True)
    y = multiply(tape, y, s.weights[f"{path}.weight"])
    if f"{path}.bias" in s.weights:
        y = tape.op([y, s.weights[f"{path}.bias"]], y.size, passes=(y,))
    return cast(tape, y, x.size)


NORM = {"layernorm": layernorm, "rmsnorm": rmsnorm, "dyt": dyt}


def l2norm(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    y = cast(tape, x, x.size // s.compute * s.wide)
    square = tape.op([y], y.size, saved=[y], backward=2 * y.size)
    return cast(tape, multiply(tape, y, tape.op([square], rows * s.wide, own=True)), x.size)


def qk_norm(tape: Tape, s: Step, path: str, model: Model, x: Value, rows: int) -> Value:
    kind = model.attention.qk_norm
    return x if kind == "none" else {"rmsnorm": rmsnorm, "l2": l2norm}[kind](tape, s, f"{path}.norm", x, rows)


def rope(tape: Tape, s: Step, model: Model, x: Value, rows: int) -> Value:
    if model.position.kind != "rope":
        return x
    width = rotated(model)
    turned = tape.op([x], rows * width * s.wide) if s.compute != s.wide else x
    half = rows * width // 2 * s.wide
    tables = s.time * width * s.wide  # cosines and sines, made of float64 ones
    y = tape.op([turned], 2 * half, forward=2 * half, backward=2 * half, extra=tables)
    return tape.op([cast(tape, y, rows * width * s.compute), x], x.size, passes=(x,))


def flash(tape: Tape, s: Step, model: Model, q: Value, k: Value, v: Value, heads: int, out: int) -> Value:
    per_row = s.tokens * heads * s.wide
    # Scores of a tile of keys for a tile of each head's queries, as they are made, exponentiated and multiplied.
    scores = s.batch * heads * min(s.tile, s.time) ** 2 * s.wide
    copies = q.size + k.size + v.size  # by head
    return tape.op(
        [q, k, v], out, saved=[q, k, v], own=True, extra=per_row,
        forward=copies + 2 * scores,
        backward=copies + out + q.size // s.compute * s.wide + 2 * per_row + 2 * scores,
    )  # fmt: skip


def tiled(model: Model) -> bool:
    """Returns whether it is `flash` that computes, whose output lies head by head."""
    lacking = model.attention.softcap or model.attention.sinks
    return model.attention.kernel == "flash" or bool(model.attention.kernel == "fused" and lacking)


def fused(tape: Tape, s: Step, model: Model, q: Value, k: Value, v: Value, heads: int, out: int) -> Value:
    if tiled(model):
        return flash(tape, s, model, q, k, v, heads, out)
    if model.position.kind in BIASED:  # written out by PyTorch, with keys and values repeated for every head
        pairs = s.batch * heads * s.time**2 * s.compute
        q, k, v = tape.op([q], q.size), tape.op([k], q.size), tape.op([v], out)
        scores = tape.op([tape.op([q, k], pairs, saved=[q, k])], pairs)
        weights = tape.op([scores], pairs, own=True)
        y = tape.op([weights, v], out, saved=[weights, v])
        return tape.op([y], out, passes=(y,))
    if s.gpu and k.size < q.size:  # for the kernels of older cards, and of float32, keys and values are repeated
        k, v = tape.op([k], q.size), tape.op([v], out)
    mask = s.time**2 if model.attention.window else 0
    return tape.op([q, k, v], out, saved=[q, k, v], own=True, extra=s.tokens * heads * s.wide + mask)


def dot_product(tape: Tape, s: Step, model: Model, q: Value, k: Value, v: Value, heads: int, out: int) -> Value:
    pairs = s.batch * heads * s.time**2
    distance = tape.op([], 8 * s.time**2)
    q, k = tape.op([q], q.size, passes=(q,)), tape.op([k], q.size)
    scores = cast(tape, tape.op([q, k], pairs * s.compute, saved=[q, k]), pairs * s.wide)
    scores = tape.op([scores], scores.size)
    if model.attention.softcap:
        scores = tape.op([tape.op([scores], scores.size)], scores.size, own=True)
        scores = tape.op([scores], scores.size)
    mask = s.time**2
    if model.position.kind in BIASED:
        learned = model.position.kind == "t5"
        scores = tape.op([scores], scores.size, passes=(scores,), extra=8 * mask if learned else 0)
    scores = tape.op([scores], scores.size, extra=mask)
    if model.attention.sinks:
        scores = tape.op([scores], scores.size)
    weights = tape.op([scores], scores.size, own=True)
    weights = cast(tape, tape.op([weights], weights.size), pairs * s.compute)
    v = tape.op([v], out)
    y = tape.op([weights, v, distance], out, saved=[weights, v])
    return tape.op([y], out, passes=(y,))


BIASED = ("alibi", "t5")
"""Positions that act on scores."""
POSITIONS = ("rope", *BIASED, "learned", "sinusoidal", "none")
KERNEL = {"dot_product": dot_product, "flash": flash, "fused": fused}


@dataclass(frozen=True)
class Heads:
    """What every kind of attention does with its heads, on a tape.

    Args:
      path: canonical name of the attention.
      first_values: those of the first layer, where they are mixed in.
    """

    tape: Tape
    s: Step
    path: str
    model: Model
    first_values: Value | None

    def project(self, name: str, x: Value) -> Value:
        return linear(self.tape, self.s, f"{self.path}.{name}", x, self.s.tokens)

    def placed(self, name: str, x: Value, heads: int) -> Value:
        """QK-norm and rotation."""
        rows = self.s.tokens * heads
        x = qk_norm(self.tape, self.s, f"{self.path}.{name}", self.model, x, rows)
        return rope(self.tape, self.s, self.model, x, rows)

    def mixed(self, v: Value) -> Value:
        if f"{self.path}.value_residual.weight" not in self.s.weights or self.first_values is None:
            return v
        own, others = (self.tape.op([x], x.size, saved=[x], backward=x.size) for x in (v, self.first_values))
        return self.tape.op([own, others], v.size, passes=(own, others))

    def attend(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        out = self.s.tokens * heads * value_shape(self.model.attention)[1] * self.s.compute
        return KERNEL[self.model.attention.kernel](self.tape, self.s, self.model, q, k, v, heads, out)

    def output(self, y: Value, x: Value) -> Value:
        if self.model.attention.gate != "none":
            gate = self.project("gate.gate_proj", x)
            y = multiply(self.tape, y, self.tape.op([gate], gate.size, own=True))
        if tiled(self.model):
            y = self.tape.op([y], y.size, passes=(y,))
        return self.project("o_proj", y)


def gqa(h: Heads, x: Value) -> tuple[Value, Value]:
    """Returns the output and the values."""
    attention = h.model.attention
    q, k, v = h.project("q_proj", x), h.project("k_proj", x), h.project("v_proj", x)
    q, k = h.placed("q_norm", q, attention.n_heads), h.placed("k_norm", k, attention.n_kv_heads)
    return h.output(h.attend(q, k, h.mixed(v), attention.n_heads), x), v


def differential(h: Heads, x: Value) -> tuple[Value, Value]:
    attention = h.model.attention
    q, k, v = h.project("q_proj", x), h.project("k_proj", x), h.project("v_proj", x)
    q, k = h.placed("q_norm", q, 2 * attention.n_heads), h.placed("k_norm", k, 2 * attention.n_kv_heads)
    mixed = h.mixed(v)
    ys = []
    for _ in range(2):  # the halves are views of q and k, whose gradients are as wide as q and k
        half = [h.tape.view(part, part.size // 2) for part in (q, k)]
        ys.append(h.attend(*half, mixed, attention.n_heads))
    scaled = h.tape.op([ys[1]], ys[1].size, saved=[ys[1]], backward=ys[1].size)
    y = h.tape.op([ys[0], scaled], scaled.size, passes=(ys[0],))
    y = rmsnorm(h.tape, h.s, f"{h.path}.head_norm", y, h.s.tokens * attention.n_heads)
    return h.output(h.tape.op([y], y.size), x), v


def mla(h: Heads, x: Value) -> tuple[Value, Value]:
    tape, s, attention = h.tape, h.s, h.model.attention
    heads, rows = attention.n_heads, s.tokens * attention.n_heads
    latent = x
    if attention.q_rank:
        latent = rmsnorm(tape, s, f"{h.path}.q_latent_norm", h.project("q_down_proj", x), s.tokens)
    q = h.project("q_up_proj", latent)
    plain, turned = (rows * width * s.compute for width in (attention.head_dim, attention.rope_dim))
    q_plain, q_rope = tape.view(q, plain), tape.view(q, turned)
    q_plain = qk_norm(tape, s, f"{h.path}.q_norm", h.model, q_plain, rows)
    latent = rmsnorm(tape, s, f"{h.path}.kv_latent_norm", h.project("kv_down_proj", x), s.tokens)
    k_rope = h.project("k_rope_proj", x)
    v = h.project("v_up_proj", latent)
    q_rope, k_rope = rope(tape, s, h.model, q_rope, rows), rope(tape, s, h.model, k_rope, s.tokens)
    mixed = h.mixed(v)
    k = qk_norm(tape, s, f"{h.path}.k_norm", h.model, h.project("k_up_proj", latent), rows)
    size = rows * query_width(attention) * s.compute
    k = tape.op([k, k_rope], size, passes=(k,))
    q = tape.op([q_plain, q_rope], size, passes=(q_plain, q_rope))
    return h.output(h.attend(q, k, mixed, heads), x), v


ATTENTION: dict[str, Callable[[Heads, Value], tuple[Value, Value]]] = {
    "gqa": gqa, "mla": mla, "differential": differential,
}  # fmt: skip
