"""What an update takes in PyTorch at its peak: the twin's model and loss on a tape, then its optimizer.

An update holds the weights and the optimizer's state throughout. A micro-batch's activations grow until the loss and
shrink from there, while gradients grow; from the second micro-batch on gradients are there all along. The optimizer
then works beside weights, state and gradients. The peak is the largest of all these moments. Tensors alone count: not
what a library's kernel holds inside one operation, nor the allocator's gaps between tensors.
"""

from collections.abc import Mapping

from slm_core.config import Config, Model
from slm_core.config.layers import layer_specs
from slm_core.config.widths import rotated
from slm_core.model.layer_groups import group_size
from slm_core.model.mup import logit_factor, lr_multiplier
from slm_core.model.parameter_groups import weight_decay
from slm_core.planner import PARTS, Prediction
from slm_core.planner.held import SLICE, Held, held
from slm_core.planner.parameters import Parameter
from slm_core.planner.tape import Memory, Player, Tape, Value
from slm_core.planner.torch_layers import ATTENTION, Heads, Step, cast, linear, norm, weight
from slm_core.planner.torch_mlp import mlp, penalty


def predict(config: Config, vocab_size: int) -> Prediction:
    """See `slm_core.planner.predict`."""
    own = held(config, vocab_size)
    fixed = {"weights": own.weights + _tables(config), "optimizer": own.optimizer}
    micro = min(config.train.micro_batch_size or config.train.batch_size, config.train.batch_size)
    accumulated = micro < config.train.batch_size
    memory = Memory(dict.fromkeys(PARTS, 0) | fixed | {"gradients": own.gradients if accumulated else 0})
    Player(memory, accumulated).play(_micro_batch(config, own, micro))
    updating = fixed | {"gradients": own.gradients, "workspace": _update(config, own.trained, own.stored)}
    if sum(updating.values()) > memory.most:
        return Prediction(**(dict.fromkeys(PARTS, 0) | updating))
    return Prediction(**memory.peak)


def _micro_batch(config: Config, own: Held, micro: int) -> Tape:
    """Returns the forward pass of one micro-batch, its loss last."""
    weights = {name: Value(own.sizes[name], graded=p.role != "frozen", weight=True) for name, p in own.shapes.items()}
    sizes, gpu = (own.stored, own.compute, own.wide), config.run.device != "cpu"
    s = Step(micro, config.data.seq_len, *sizes, weights, own.shapes, gpu)
    tape = Tape()
    x = _embedded(tape, s, config.model)
    x, added = _layers(tape, s, config, x)
    if config.model.norm.placement != "post":
        x = norm(tape, s, "final_norm", config.model.norm, x, s.tokens)
    _loss(tape, s, config, x, added)
    return tape


def _embedded(tape: Tape, s: Step, model: Model) -> Value:
    table, ids = s.weights["embed.weight"], 8 * s.tokens
    x = tape.op([table], s.tokens * model.d_model * s.stored, extra=ids)
    x = cast(tape, x, s.tokens * model.d_model * s.compute)
    if model.embed_scale != 1:
        x = tape.op([x], x.size)
    if model.embed_norm:
        x = norm(tape, s, "embed_norm", model.norm, x, s.tokens)
    if model.position.kind == "learned":
        x = tape.op([x, weight(tape, s, "position.weight", s.compute)], x.size, passes=(x,))
    elif model.position.kind == "sinusoidal":
        x = tape.op([x], x.size, passes=(x,))
    return _dropout(tape, s, model, x)


def _dropout(tape: Tape, s: Step, model: Model, x: Value) -> Value:
    """The mask is made of 64-bit indices and 32-bit hashes, and kept as bytes."""
    if not model.dropout:
        return x
    elements = x.size // s.compute
    y = tape.op([x], x.size)
    return tape.op([y], x.size, extra=elements, forward=16 * elements)


def _layers(tape: Tape, s: Step, config: Config, x: Value) -> tuple[Value, list[Value]]:
    """Returns the stream after all layers, and what they add to the loss."""
    layers, remat = layer_specs(config.model), config.memory.remat
    mixed = any(layer.attention.value_residual for layer in layers[1:])
    stream = _Stream(x)

    def call(on: Tape, index: int) -> Value:
        _block(on, s, f"layers.{index}", layers[index], stream, gives_values=mixed and index == 0)
        return stream.x

    def calls(on: Tape, indices: range) -> Value:
        for index in indices:
            if remat in ("attention", "block", "full"):
                on.checkpoint([stream.x], lambda segment, i=index: call(segment, i), keeps=remat == "attention")
            else:
                call(on, index)
        return stream.x

    size = group_size(len(layers)) if remat == "full" else len(layers)
    for first in range(0, len(layers), size):
        group = range(first, min(first + size, len(layers)))
        if remat == "full":
            tape.checkpoint([stream.x], lambda segment, g=group: calls(segment, g))
        else:
            calls(tape, group)
    return stream.x, stream.added


class _Stream:
    """What one block hands to the next."""

    def __init__(self, x: Value):
        self.x = x
        self.first_values: Value | None = None
        self.added: list[Value] = []


def _block(tape: Tape, s: Step, path: str, model: Model, stream: _Stream, gives_values: bool) -> None:
    def normed(name: str, x: Value) -> Value:
        return norm(tape, s, f"{path}.{name}", model.norm, x, s.tokens)

    def attend(x: Value) -> Value:
        heads = Heads(tape, s, f"{path}.attention", model, stream.first_values)
        y, values = ATTENTION[model.attention.kind](heads, x)
        if gives_values:
            stream.first_values = values
            tape.exports.append(values)
        return _dropout(tape, s, model, y)

    def feed(x: Value) -> Value:
        if model.mlp.kind == "moe":
            stream.added.append(penalty(tape, s, f"{path}.mlp", model.mlp, x))
            tape.exports.append(stream.added[-1])
        return _dropout(tape, s, model, mlp(tape, s, f"{path}.mlp", model, x))

    def add(x: Value, y: Value) -> Value:
        if model.residual_multiplier != 1:
            y = tape.op([y], y.size)
        return tape.op([x, y], x.size, passes=(x, y))

    stream.x = PLACEMENT[model.norm.placement](stream.x, normed, attend, feed, add)


def _pre(x, normed, attend, feed, add):
    x = add(x, attend(normed("attention_norm", x)))
    return add(x, feed(normed("mlp_norm", x)))


def _post(x, normed, attend, feed, add):
    x = normed("attention_norm", add(x, attend(x)))
    return normed("mlp_norm", add(x, feed(x)))


def _sandwich(x, normed, attend, feed, add):
    x = add(x, normed("attention_output_norm", attend(normed("attention_norm", x))))
    return add(x, normed("mlp_output_norm", feed(normed("mlp_norm", x))))


def _output(x, normed, attend, feed, add):
    x = add(x, normed("attention_norm", attend(x)))
    return add(x, normed("mlp_norm", feed(x)))


def _parallel(x, normed, attend, feed, add):
    return add(add(x, attend(normed("attention_norm", x))), feed(normed("mlp_norm", x)))


def _parallel_shared(x, normed, attend, feed, add):
    y = normed("attention_norm", x)
    return add(add(x, attend(y)), feed(y))


PLACEMENT = {
    "pre": _pre, "post": _post, "sandwich": _sandwich, "output": _output, "parallel": _parallel,
    "parallel_shared": _parallel_shared,
}  # fmt: skip


def _loss(tape: Tape, s: Step, config: Config, hidden: Value, added: list[Value]) -> None:
    """The loss, whole or in chunks; each chunk is a segment."""
    rows, chunk = s.tokens, config.memory.loss_chunk or 0
    tape.part = "logits"
    if not chunk:
        total = _token_losses(tape, s, config.model, hidden, rows)
        tape.op([total, *added], s.wide)
        return
    found = []
    for first in range(0, rows, chunk):
        count = min(chunk, rows - first)
        piece = tape.view(hidden, hidden.size * count // rows)
        found.append(tape.checkpoint([piece], lambda on, x=piece, n=count: _token_losses(on, s, config.model, x, n)))
    tape.op([*found, *added], s.wide)


def _token_losses(tape: Tape, s: Step, model: Model, hidden: Value, rows: int) -> Value:
    if model.tie_embeddings:
        table = weight(tape, s, "embed.weight", s.compute)
        saved = ([hidden] if table.graded else []) + [table]
        logits = tape.op([hidden, table], rows * s.shapes["embed.weight"].shape[0] * s.compute, saved=saved)
    else:
        logits = linear(tape, s, "head", hidden, rows)
    logits = cast(tape, logits, logits.size // s.compute * s.wide)
    if logit_factor(model) != 1:
        logits = tape.op([logits], logits.size)
    if model.logit_softcap:
        logits = tape.op([tape.op([logits], logits.size)], logits.size, own=True)
        logits = tape.op([logits], logits.size)
    losses = [tape.op([logits], rows * s.wide, extra=logits.size, reuses=True)]
    if model.z_loss:
        losses.append(tape.op([logits], rows * s.wide, saved=[logits], own=True, backward=2 * logits.size))
    return tape.op(losses, s.wide)


def _tables(config: Config) -> int:
    """Bytes of what is computed once and kept, in float64 or int64: cosines and sines, slopes, positions, buckets."""
    model, context = config.model, config.data.seq_len
    count = context * model.d_model if model.position.kind == "sinusoidal" else 0
    for layer in layer_specs(model):
        attends = 2 if layer.attention.kind == "differential" else 1
        if layer.position.kind == "rope":
            count += context * rotated(layer)
        elif layer.position.kind == "alibi":
            count += attends * context * layer.attention.n_heads
        elif layer.position.kind == "t5":
            count += attends * context
    return 8 * count


def _update(config: Config, trained: Mapping[str, Parameter], stored: int) -> int:
    """Returns the bytes that an optimizer's update needs beside weights, state and gradients."""
    optim = config.optim
    largest = max(p.size for p in trained.values()) * stored
    if optim.kind in ("lion", "schedule_free"):
        return _largest_group(config, trained) * stored  # the sign of a momentum; the root of a second moment
    if optim.kind == "adafactor":
        return 2 * largest  # a squared gradient and what it is divided by; an update and its square
    if optim.kind == "muon":
        matrices = [p for p in trained.values() if p.role == "matrix" and len(p.shape) >= 2]
        return max((_orthogonal(p) for p in matrices), default=0) * stored
    if optim.kind == "adamw8bit":
        return 6 * min(SLICE, largest // stored) * stored
    return 0


def _largest_group(config: Config, trained: Mapping[str, Parameter]) -> int:
    """Returns the numbers in the parameters of one learning rate multiplier and weight decay: PyTorch's groups."""
    sizes: dict[tuple[float, float], int] = {}
    for p in trained.values():
        group = lr_multiplier(p.role, config), weight_decay(p.role, config.optim)
        sizes[group] = sizes.get(group, 0) + p.size
    return max(sizes.values())


def _orthogonal(p: Parameter) -> int:
    """Returns how many numbers Newton and Schulz's iteration holds: x, a x, a product, their sum, and x x^T twice."""
    gram = p.size // max(p.shape[-2:]) * min(p.shape[-2:])
    return 4 * p.size + 2 * gram
