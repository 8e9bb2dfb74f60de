"""Predicts the peak memory of an update in PyTorch: of the model and the loss on a graph, then of the optimizer.

The weights and the optimizer's state stay in memory during the whole update. A micro-batch's activations grow until
the loss and shrink after it, while gradients grow. From the second micro-batch on, gradients are always there. The
optimizer then works beside weights, state and gradients. The peak is the largest of all these moments. Only tensors
count, not the memory that a library's kernel allocates itself, nor the allocator's gaps between tensors.
"""

from collections.abc import Mapping

from slm_core.config import Config, Model
from slm_core.config.layers import layer_specs
from slm_core.config.widths import rotated
from slm_core.model.layer_groups import group_size
from slm_core.model.mup import logit_factor, lr_multiplier
from slm_core.model.parameter_groups import weight_decay
from slm_core.planner.allocator import Allocator
from slm_core.planner.declarations import Parameter, Twin
from slm_core.planner.graph import Graph, Value
from slm_core.planner.mixers import Measured, measured_mixers
from slm_core.planner.prediction import PARTS, Prediction
from slm_core.planner.resident import SLICE, Resident, resident_memory
from slm_core.planner.simulator import Simulator
from slm_core.planner.torch_block import Stream, block, dropout
from slm_core.planner.torch_layers import Step, cast, linear, norm, weight


def predict(config: Config, vocab_size: int, twin: Twin) -> Prediction:
    """Predicts the memory of an update; see `slm_core.planner.predict`."""
    always = resident_memory(config, vocab_size, twin.declare)
    fixed = {"weights": always.weights + _tables(config), "optimizer": always.optimizer}
    micro = min(config.train.micro_batch_size or config.train.batch_size, config.train.batch_size)
    accumulated = micro < config.train.batch_size
    mixers = measured_mixers(config, vocab_size, twin, micro)
    allocator = Allocator(dict.fromkeys(PARTS, 0) | fixed | {"gradients": always.gradients if accumulated else 0})
    Simulator(allocator, accumulated).run(_micro_batch(config, always, micro, mixers))
    work = _update(config, always.trained, always.stored)
    updating = fixed | {"gradients": always.gradients, "workspace": work}
    if sum(updating.values()) > allocator.peak_total:
        return Prediction(**(dict.fromkeys(PARTS, 0) | updating))
    return Prediction(**allocator.peak)


def _micro_batch(config: Config, always: Resident, micro: int, mixers: Mapping[int, Measured]) -> Graph:
    """Returns the forward pass of one micro-batch. Its last operation is the loss."""
    weights = {
        name: Value(always.sizes[name], graded=p.role != "frozen", weight=True) for name, p in always.parameters.items()
    }
    sizes, gpu = (always.stored, always.compute, always.wide), config.run.device != "cpu"
    s = Step(micro, config.data.seq_len, *sizes, weights, always.parameters, gpu, config.data.document_mask)
    graph = Graph()
    x = _embedded(graph, s, config.model)
    x, added = _layers(graph, s, config, x, mixers)
    if config.model.norm.placement != "post":
        x = norm(graph, s, "final_norm", config.model.norm, x, s.tokens)
    _loss(graph, s, config, x, added)
    return graph


def _embedded(graph: Graph, s: Step, model: Model) -> Value:
    table, ids = s.weights["embed.weight"], 8 * s.tokens
    x = graph.op([table], s.tokens * model.d_model * s.stored, extra=ids)
    x = cast(graph, x, s.tokens * model.d_model * s.compute)
    if model.embed_scale != 1:
        x = graph.op([x], x.size)
    if model.embed_norm:
        x = norm(graph, s, "embed_norm", model.norm, x, s.tokens)
    if model.position.kind == "learned":
        x = graph.op([x, weight(graph, s, "position.weight", s.compute)], x.size, passes=(x,))
    elif model.position.kind == "sinusoidal":
        x = graph.op([x], x.size, passes=(x,))
    return dropout(graph, s, model, x)


def _layers(
    graph: Graph, s: Step, config: Config, x: Value, mixers: Mapping[int, Measured]
) -> tuple[Value, list[Value]]:
    """Adds all layers. Returns the stream after them, and the terms that they add to the loss."""
    layers, remat = layer_specs(config.model), config.memory.remat
    mixed = any(layer.attention.value_residual for layer in layers[1:])
    stream = Stream(x)

    def call(on: Graph, index: int) -> Value:
        gives_values = mixed and index == 0
        block(on, s, f"layers.{index}", layers[index], stream, gives_values, mixers.get(index))
        return stream.x

    def calls(on: Graph, indices: range) -> Value:
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
            graph.checkpoint([stream.x], lambda segment, g=group: calls(segment, g))
        else:
            calls(graph, group)
    return stream.x, stream.added


def _loss(graph: Graph, s: Step, config: Config, hidden: Value, added: list[Value]) -> None:
    """Adds the loss, of all tokens at once or in chunks. Each chunk is a checkpointed segment."""
    rows, chunk = s.tokens, config.memory.loss_chunk or 0
    graph.part = "logits"
    if not chunk:
        total = _token_losses(graph, s, config.model, hidden, rows)
        graph.op([total, *added], s.wide)
        return
    losses = []
    for first in range(0, rows, chunk):
        count = min(chunk, rows - first)
        piece = graph.view(hidden, hidden.size * count // rows)
        losses.append(graph.checkpoint([piece], lambda on, x=piece, n=count: _token_losses(on, s, config.model, x, n)))
    graph.op([*losses, *added], s.wide)


def _token_losses(graph: Graph, s: Step, model: Model, hidden: Value, rows: int) -> Value:
    if model.tie_embeddings:
        table = weight(graph, s, "embed.weight", s.compute)
        saved = ([hidden] if table.graded else []) + [table]
        logits = graph.op([hidden, table], rows * s.declared["embed.weight"].shape[0] * s.compute, saved=saved)
    else:
        logits = linear(graph, s, "head", hidden, rows)
    logits = cast(graph, logits, logits.size // s.compute * s.wide)
    if logit_factor(model) != 1:
        logits = graph.op([logits], logits.size)
    if model.head_bias:
        logits = graph.op([logits, s.weights["head_bias"]], logits.size, passes=(logits,))
    if model.logit_softcap:
        logits = graph.op([graph.op([logits], logits.size)], logits.size, saves_output=True)
        logits = graph.op([logits], logits.size)
    losses = [graph.op([logits], rows * s.wide, extra=logits.size, reuses=True)]
    if model.z_loss:
        losses.append(graph.op([logits], rows * s.wide, saved=[logits], saves_output=True, backward=2 * logits.size))
    return graph.op(losses, s.wide)


def _tables(config: Config) -> int:
    """Returns the bytes of tables that are computed once, in float64 or int64: RoPE's, ALiBi's, T5's, sinusoids."""
    model, context = config.model, config.data.seq_len
    count = context * model.d_model if model.position.kind == "sinusoidal" else 0
    for layer in layer_specs(model):
        if layer.mixer.kind != "attention":
            continue
        attends = 2 if layer.attention.kind == "differential" else 1
        if layer.position.kind == "rope":
            count += context * rotated(layer)
        elif layer.position.kind == "alibi":
            count += attends * context * layer.attention.n_heads
        elif layer.position.kind == "t5":
            count += attends * context
    return 8 * count


def _update(config: Config, trained: Mapping[str, Parameter], stored: int) -> int:
    """Returns the bytes that the optimizer's update needs beside weights, state and gradients."""
    optim = config.optim
    largest = max(p.size for p in trained.values()) * stored
    if optim.kind in ("lion", "schedule_free"):
        return _largest_group(config, trained) * stored  # the sign of a momentum, or the root of a second moment
    if optim.kind == "adafactor":
        return 2 * largest  # a squared gradient and its divisor, then an update and its square
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
    """Returns the values that Newton and Schulz's iteration needs: x, a x, a product, their sum, and x x^T twice."""
    gram = p.size // max(p.shape[-2:]) * min(p.shape[-2:])
    return 4 * p.size + 2 * gram
