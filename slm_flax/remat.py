"""Rematerialisation (Chen et al. 2016, https://arxiv.org/abs/1604.06174): memory.remat says what is recomputed.

    attention  a block without its products with weights, whose results are kept
    block      a block, from its input
    full       a group of about sqrt(n_layers) blocks, from its input, then each of its blocks from its input

A stack of layers runs in a loop. Without a loop XLA's CPU backend would see that the forward pass computed the same
values, and keep them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Float

from slm_core.model.layer_groups import group_size
from slm_flax.layers.documents import Documents
from slm_flax.layers.dropout import DropoutKey, layer_key
from slm_flax.numerics import wide
from slm_flax.stack import Stack, at, repeated

AGAIN = {
    "attention": partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "block": jax.checkpoint,
    "full": jax.checkpoint,
}
"""{memory.remat: wrapper of a block's function, after which less is kept for the backward pass}."""


class Stream(NamedTuple):
    """The values that one block passes to the next.

    Args:
      x: the residual stream.
      first_values: the values of the first layer, if a later layer mixes them in.
      auxiliary_loss: the sum of the auxiliary losses of the layers so far, per token.
    """

    x: Float[Array, "batch time d_model"]
    first_values: Float[Array, "batch time kv_heads head_dim"] | None
    auxiliary_loss: Float[Array, ""] | float


def run(
    layers: Sequence[nnx.Module],
    stack: Stack,
    remat: str,
    stream: Stream,
    start: int | Array,
    key: DropoutKey | None,
    documents: Documents | None = None,
) -> Stream:
    """Runs all layers; `stack` says which of them are bound to stacks."""
    again = AGAIN.get(remat, lambda function: function)

    def call(layer: nnx.Module, index: int | Array, stream: Stream) -> Stream:
        return layer(stream, start, layer_key(key, index), None, documents)

    for index in range(stack.start):
        stream = again(partial(call, layers[index], index))(stream)
    if stack.repeats:
        stream = _loop(layers, stack, remat, stream, call)
    for index in range(stack.stop, len(layers)):
        stream = again(partial(call, layers[index], index))(stream)
    return stream


def _loop(layers: Sequence[nnx.Module], stack: Stack, remat: str, stream: Stream, call: Callable) -> Stream:
    """Runs the layers of a stack.

    Loops carry the whole stream, with the first layer's values. If gradients are added up in place, JAX 0.10.2 mixes up
    the gradients of values that a loop's body reads from outside.
    """
    again = partial(AGAIN[remat], prevent_cse=False)  # XLA merges nothing inside of a loop
    stacks, layer_at = repeated(stack, layers)

    def repeats(stream: Stream, stacks: list, first: int | Array, count: int) -> Stream:
        """Runs `count` repeats, whose parameters are `stacks`, from the repeat `first` on."""

        def layer(stream: Stream, number: Array, place: int) -> Stream:
            params, repeat = at(stacks[place], number), first + number
            return call(layer_at[place](params, repeat), stack.start + stack.period * repeat + place, stream)

        def step(stream: Stream, number: Array) -> tuple[Stream, None]:
            for place in range(stack.period):
                stream = again(partial(layer, place=place))(stream, number)
            return stream, None

        return jax.lax.scan(step, stream, jnp.arange(count))[0]

    def group(stream: Stream, first: int | Array, count: int) -> Stream:
        params = jax.tree.map(lambda x: dynamic_slice_in_dim(x, first, count), stacks)
        return repeats(stream, params, first, count)

    stream = stream._replace(auxiliary_loss=jnp.asarray(stream.auxiliary_loss, wide(stream.x.dtype)))
    if remat != "full":
        return repeats(stream, stacks, 0, stack.repeats)
    size = max(1, round(group_size(len(layers)) / stack.period))
    groups, rest = divmod(stack.repeats, size)
    whole = jax.checkpoint(partial(group, count=size), prevent_cse=False)
    stream, _ = jax.lax.scan(lambda stream, number: (whole(stream, size * number), None), stream, jnp.arange(groups))
    return jax.checkpoint(partial(group, count=rest))(stream, size * groups) if rest else stream
