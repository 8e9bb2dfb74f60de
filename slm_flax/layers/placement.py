"""The places of the norms in a block: one function per value of norm.placement."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jax import Array

Sublayer = Callable[[Array], Array]
"""A half of a block (attention or MLP) or a norm: a function of tensors of the stream's shape."""


@runtime_checkable
class Normed(Protocol):
    """The block that a placement acts on: it has the norms that `PLACEMENT` names, and adds to the stream."""

    attention_norm: Sublayer
    attention_output_norm: Sublayer
    mlp_norm: Sublayer
    mlp_output_norm: Sublayer

    def add(self, x: Array, y: Array) -> Array:
        """Adds `y`, times model.residual_multiplier, to the stream `x`."""
        ...


def pre(block: Normed, x: Array, attend: Sublayer, feed: Sublayer | None) -> Array:
    """Norms the input of each half f of the block: x + f(norm(x)).

    Paper: Xiong et al. 2020, https://arxiv.org/abs/2002.04745.
    """
    x = block.add(x, attend(block.attention_norm(x)))
    return x if feed is None else block.add(x, feed(block.mlp_norm(x)))


def post(block: Normed, x: Array, attend: Sublayer, feed: Sublayer | None) -> Array:
    """Norms the stream after each half f of the block: norm(x + f(x)).

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
    """
    x = block.attention_norm(block.add(x, attend(x)))
    return x if feed is None else block.mlp_norm(block.add(x, feed(x)))


def sandwich(block: Normed, x: Array, attend: Sublayer, feed: Sublayer | None) -> Array:
    """Norms the input and the output of each half f of the block: x + norm'(f(norm(x))).

    Paper: Ding et al. 2021, https://arxiv.org/abs/2105.13290.
    """
    x = block.add(x, block.attention_output_norm(attend(block.attention_norm(x))))
    return x if feed is None else block.add(x, block.mlp_output_norm(feed(block.mlp_norm(x))))


def output(block: Normed, x: Array, attend: Sublayer, feed: Sublayer | None) -> Array:
    """Norms the output of each half f of the block: x + norm(f(x)).

    Paper: OLMo 2 2024, https://arxiv.org/abs/2501.00656.
    """
    x = block.add(x, block.attention_norm(attend(x)))
    return x if feed is None else block.add(x, block.mlp_norm(feed(x)))


def parallel(block: Normed, x: Array, attend: Sublayer, feed: Sublayer | None) -> Array:
    """Runs both halves on the same stream, each with its norm: x + attention(norm(x)) + mlp(norm'(x)).

    Paper: GPT-NeoX 2022, https://arxiv.org/abs/2204.06745.
    """
    mixed = block.add(x, attend(block.attention_norm(x)))
    return mixed if feed is None else block.add(mixed, feed(block.mlp_norm(x)))


def parallel_shared(block: Normed, x: Array, attend: Sublayer, feed: Sublayer | None) -> Array:
    """Runs both halves on the same stream with one norm: x + attention(norm(x)) + mlp(norm(x)).

    Source: GPT-J 2021, https://github.com/kingoflolz/mesh-transformer-jax.
    """
    y = block.attention_norm(x)
    mixed = block.add(x, attend(y))
    return mixed if feed is None else block.add(mixed, feed(y))


PLACEMENT = {
    "pre": (pre, ("attention", "mlp")),
    "post": (post, ("attention", "mlp")),
    "sandwich": (sandwich, ("attention", "attention_output", "mlp", "mlp_output")),
    "output": (output, ("attention", "mlp")),
    "parallel": (parallel, ("attention", "mlp")),
    "parallel_shared": (parallel_shared, ("attention",)),
}
"""{norm.placement: (the function, the norms that it uses)}. Of a block without an MLP, `feed` is None."""
