"""Looks inside a model: attention weights, the residual stream after each layer, and what each module costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from slm_core.protocols import LOGITS, Module
from slm_torch.details import recorded
from slm_torch.layers.attend import Attend
from slm_torch.layers.dot_product import dot_product
from slm_torch.loss import input_ids, read
from slm_torch.model import Transformer
from slm_torch.numerics import wide


def inspected(model: Transformer, tokens: Int[Tensor, "rows time"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Computes the attention weights and the streams of a batch; see `slm_core.protocols.Inspection`."""
    weights: dict[str, Tensor] = {}
    streams: dict[str, Tensor] = {}

    def keep(path: str, x: Tensor) -> None:
        if path.count(".") == 1:  # a layer, not a half of it
            streams[path] = x.to(wide(x.dtype))

    with recorded(model, keep), weighed(model, weights.__setitem__):
        read(model, tokens, None)
    return weights, streams


@contextmanager
def weighed(model: Transformer, record: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls `record` with the path and the weights of each softmax attention, until the context ends.

    A kernel is linear in its values. So values that are one-hot, a different one per key, give the weights of the keys:
    [rows, heads, time, keys]. This holds for every kernel, bias, window, soft-cap and sink.
    """

    def hook(path: str) -> Callable[..., None]:
        def call(attend: Attend, inputs: tuple, y: Tensor) -> None:
            q, k, v, *places = inputs
            one_hot = torch.eye(k.shape[1], dtype=v.dtype, device=v.device)[:, None]
            weights = attend.forward(q, k, one_hot.expand(*v.shape[:3], -1), *places)
            record(path, weights.transpose(1, 2).to(wide(weights.dtype)))

        return call

    handles = [
        module.register_forward_hook(hook(path)) for path, module in model.named_modules() if isinstance(module, Attend)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lens(model: Transformer, stream: Float[Tensor, "rows time d_model"]) -> Float[Tensor, "rows time vocab"]:
    """Computes log p of each token as if `stream` came out of the last layer; see `slm_core.protocols.Inspector`."""
    hidden = stream if model.final_norm is None else model.final_norm(stream)
    return torch.log_softmax(model.logits(hidden), dim=-1)


def modules(model: Transformer, tokens: Int[Tensor, "rows time"]) -> list[Module]:
    """Lists the modules that a forward pass calls, in the order of their calls; see `slm_core.protocols.Inspector`."""
    outputs: dict[str, Any] = {}

    named = dict(model.named_modules())
    handles = [
        handle
        for path, module in named.items()
        for handle in (
            module.register_forward_pre_hook(lambda module, inputs, path=path: outputs.update({path: None})),
            module.register_forward_hook(lambda module, inputs, output, path=path: outputs.update({path: output})),
        )
    ]
    try:
        with plain_kernels(model), FlopCounterMode(display=False) as counter:
            hidden, _ = model(input_ids(tokens))
            outputs[LOGITS] = model.logits(hidden)
    finally:
        for handle in handles:
            handle.remove()
    counts = {path: sum(each.values()) for path, each in counter.get_flop_counts().items()}
    flops = {path: counts.get(f"{type(model).__name__}.{path}".rstrip("."), 0) for path in outputs}
    flops |= {LOGITS: counts["Global"] - flops[""], "": counts["Global"]}
    owners: dict[str, nn.Module | None] = {**named, LOGITS: model.head}
    return [described(path, owners[path], outputs[path], flops[path]) for path in outputs if path != "head"]


def described(path: str, module: nn.Module | None, output: Any, flops: int) -> Module:
    """Describes a module, or the logits, by its path, its output and its operations."""
    first = output[0] if isinstance(output, tuple) else output
    parameters = {} if module is None else dict(module.named_parameters(recurse=False))
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    kind = "" if module is None else type(module).__name__
    return Module(path, kind, shapes, flops, tuple(first.shape), first.nbytes)


@contextmanager
def plain_kernels(model: Transformer) -> Iterator[None]:
    """Lets every attention compute all scores, inside the context: a counter does not see into fused kernels."""
    attends = [module for module in model.modules() if isinstance(module, Attend)]
    kernels = [attend.kernel for attend in attends]
    for attend in attends:
        attend.kernel = dot_product
    try:
        yield
    finally:
        for attend, kernel in zip(attends, kernels, strict=True):
            attend.kernel = kernel
