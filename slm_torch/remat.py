"""Rematerialisation (Chen et al. 2016, https://arxiv.org/abs/1604.06174): memory.remat says what is recomputed.

    attention  a block without its products with weights, whose results are kept
    block      a block, from its input
    full       a group of about sqrt(n_layers) blocks, from its input, then each of its blocks from its input

Under `attention` a frozen matrix in few bits is dequantised again, although its product is kept.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from slm_core.model.layer_groups import group_size
from slm_torch.layers.documents import Documents
from slm_torch.layers.dropout import DropoutKey, layer_key

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
"""The operations of a linear layer; the products of attention have one more axis."""


class Stream(NamedTuple):
    """The values that one block passes to the next.

    Args:
      x: the residual stream.
      first_values: the values of the first layer, if a later layer mixes them in.
      auxiliary_loss: the sum of the auxiliary losses of the layers so far, per token.
    """

    x: Float[Tensor, "batch time d_model"]
    first_values: Float[Tensor, "batch time kv_heads head_dim"] | None
    auxiliary_loss: Float[Tensor, ""] | float


def run(
    layers: nn.ModuleList,
    remat: str,
    stream: Stream,
    start: int,
    key: DropoutKey | None,
    documents: Documents | None = None,
) -> Stream:
    """Runs all layers."""

    def call(index: int, stream: Stream) -> Stream:
        return layers[index](stream, start, layer_key(key, index), None, documents)

    def calls(indices: range, stream: Stream) -> Stream:
        for index in indices:
            stream = again(remat, partial(call, index), stream)
        return stream

    if remat != "full":
        return calls(range(len(layers)), stream)
    size = group_size(len(layers))
    for first in range(0, len(layers), size):
        group = range(first, min(first + size, len(layers)))
        stream = again(remat, partial(calls, group), stream)
    return stream


def again(remat: str, function: Callable[[Stream], Stream], stream: Stream) -> Stream:
    """Calls a function of the stream so that the backward pass recomputes what memory.remat says."""
    if remat not in ("attention", "block", "full") or not torch.is_grad_enabled():
        return function(stream)
    options: dict[str, Any] = dict(use_reentrant=False, preserve_rng_state=False)
    if remat == "attention":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_products)
    # One by one: a checkpoint inside a checkpoint would keep the tensors of an argument that is a tuple.
    kind = type(stream)
    # pyrefly: ignore[bad-return]  torch declares no type for `checkpoint`
    return checkpoint(lambda *parts: function(kind(*parts)), *stream, **options)


def _keep_products(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
