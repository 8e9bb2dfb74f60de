"""The PyTorch twin's MLPs on a tape; see `torch_layers`."""

from slm_core.config import Mlp, Model
from slm_core.planner.parameters import GATED
from slm_core.planner.tape import Tape, Value
from slm_core.planner.torch_layers import Step, cast, linear, multiply, weight


def gelu(tape: Tape, up: Value) -> Value:
    return tape.op([up], up.size, saved=[up])


def relu2(tape: Tape, up: Value) -> Value:
    y = tape.op([up], up.size, own=True)
    return tape.op([y], y.size, saved=[y], backward=2 * y.size)


def swiglu(tape: Tape, gate: Value, up: Value) -> Value:
    gate = tape.op([gate], gate.size, saved=[gate])
    return tape.op([gate, up], gate.size, saved=[gate, up])


def clipped_swiglu(tape: Tape, gate: Value, up: Value) -> Value:
    gate, up = (tape.op([x], x.size, saved=[x], backward=x.size // 4) for x in (gate, up))
    share = tape.op([tape.op([gate], gate.size)], gate.size, own=True)
    gate = tape.op([gate, share], gate.size, saved=[gate, share])
    up = tape.op([up], up.size, passes=(up,))
    return tape.op([gate, up], gate.size, saved=[gate, up])


ACTIVATION = {"gelu": gelu, "relu2": relu2, "swiglu": swiglu, "geglu": swiglu, "clipped_swiglu": clipped_swiglu}
"""{kind: what it does with up, or with gate and up}."""


def mlp(tape: Tape, s: Step, path: str, model: Model, x: Value) -> tuple[Value, Value | None]:
    """Returns the output and the auxiliary loss, which dense kinds lack."""
    if model.mlp.kind == "moe":
        return moe(tape, s, path, model, x)
    return dense(tape, s, path, model.mlp.kind, x), None


def dense(tape: Tape, s: Step, path: str, kind: str, x: Value) -> Value:
    inner = [linear(tape, s, f"{path}.{name}", x, s.tokens) for name in _inward(kind)]
    return linear(tape, s, f"{path}.down_proj", ACTIVATION[kind](tape, *inner), s.tokens)


def moe(tape: Tape, s: Step, path: str, model: Model, x: Value) -> tuple[Value, Value]:
    config, pairs = model.mlp, s.tokens * model.mlp.top_k
    logits = _router(tape, s, path, config, x)
    scores = tape.op([logits], logits.size, own=True)
    indices = 8 * pairs
    rows = tape.op([x], x.size * config.top_k)  # repeated, then in the order of their experts
    rows = tape.op([rows], rows.size, extra=2 * indices)
    inner = [_experts(tape, s, f"{path}.{name}", rows, pairs) for name in reversed(_inward(config.expert))][::-1]
    y = _experts(tape, s, f"{path}.down_proj", ACTIVATION[config.expert](tape, *inner), pairs)
    y = tape.op([y], y.size, extra=indices)
    chosen = tape.op([scores], pairs * s.wide, extra=indices)
    y = tape.op([multiply(tape, y, cast(tape, chosen, pairs * s.compute))], x.size)
    if config.shared_experts:
        shared = dense(tape, s, f"{path}.shared", config.expert, x)
        y = tape.op([y, shared], y.size, passes=(y, shared))
    auxiliary_loss = tape.op([tape.op([logits], logits.size, own=True)], 0, extra=logits.size)
    return y, auxiliary_loss


def _inward(kind: str) -> list[str]:
    return ["gate_proj", "up_proj"] if kind in GATED else ["up_proj"]


def _router(tape: Tape, s: Step, path: str, config: Mlp, x: Value) -> Value:
    """Its logits, float32 or wider."""
    x = cast(tape, x, x.size // s.compute * s.wide)
    w = weight(tape, s, f"{path}.router.weight", s.wide)
    return tape.op([x, w], s.tokens * config.experts * s.wide, saved=[x, w], product=True)


def _experts(tape: Tape, s: Step, path: str, x: Value, rows: int) -> Value:
    """The rows' products with their experts' matrices, put together; their gradients are put together as well."""
    name = f"{path}.weight"
    w = s.weights[name]
    size = s.shapes[name].size * s.compute
    out = rows * s.shapes[name].shape[2] * s.compute
    pieces = tape.view(x, x.size)
    matrices = tape.view(cast(tape, w, size), size)
    saved = ([pieces] if w.graded else []) + ([matrices] if x.graded else [])
    y = tape.op([pieces, matrices], out, saved=saved, product=True)
    if f"{path}.bias" in s.weights:
        y = tape.op([y, s.weights[f"{path}.bias"]], out, passes=(y,))
    return tape.op([y], out, passes=(y,))
