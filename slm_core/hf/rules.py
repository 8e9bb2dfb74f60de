"""How tensors of a Hugging Face checkpoint correspond to ours, both ways, as data.

Ours: a linear weight is [in, out], an expert's [experts, in, out], queries and keys turn in half-split pairs. Theirs: a
linear weight is [out, in], whatever is fused or interleaved is said by a rule's layout.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Arrays = list[np.ndarray]


class Layout(NamedTuple):
    """What happens to the arrays of a rule on their way; each function undoes the other."""

    to_ours: Callable[[Arrays], Arrays]
    to_theirs: Callable[[Arrays], Arrays]


class Rule(NamedTuple):
    """Tensors of ours that are made of tensors of theirs, and the other way round."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout


def _each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: [function(array) for array in arrays]


SAME = Layout(list, list)
TRANSPOSED = Layout(_each(lambda x: x.T), _each(lambda x: x.T))
"""Also right for a bias, whose transpose it is itself."""


def then(first: Layout, second: Layout) -> Layout:
    """Returns the layout that goes to ours by `first`, then by `second`."""
    return Layout(
        lambda arrays: second.to_ours(first.to_ours(arrays)), lambda arrays: first.to_theirs(second.to_theirs(arrays))
    )


def split(sizes: Sequence[int], axis: int = -1) -> Layout:
    """One array of theirs holds several of ours, one behind the other along an axis of ours."""
    edges = np.cumsum(sizes)[:-1]
    return Layout(lambda arrays: np.split(arrays[0], edges, axis), lambda arrays: [np.concatenate(arrays, axis)])


def split_heads(heads: int, sizes: Sequence[int]) -> Layout:
    """One array of theirs holds several of ours, whose last axes are mixed: head by head, each with all of them.

    Args:
      heads: how many.
      sizes: features of each array in one head.
    """
    edges = np.cumsum(sizes)[:-1]

    def to_ours(arrays: Arrays) -> Arrays:
        lead = arrays[0].shape[:-1]
        pieces = np.split(arrays[0].reshape(*lead, heads, sum(sizes)), edges, -1)
        return [piece.reshape(*lead, -1) for piece in pieces]

    def to_theirs(arrays: Arrays) -> Arrays:
        lead = arrays[0].shape[:-1]
        pieces = [a.reshape(*lead, heads, size) for a, size in zip(arrays, sizes, strict=True)]
        return [np.concatenate(pieces, -1).reshape(*lead, -1)]

    return Layout(to_ours, to_theirs)


def half_split(heads: int, width: int, rotary: int) -> Layout:
    """Their rotary features stand in pairs (0, 1), (2, 3), ...; ours are (0, n/2), (1, n/2 + 1), ... of the last axis.

    Args:
      heads, width: the last axis is heads of this width.
      rotary: how many features turn: the last ones of a head.
    """
    order = np.arange(width)
    order[width - rotary :] = width - rotary + np.concatenate([np.arange(0, rotary, 2), np.arange(1, rotary, 2)])

    def reordered(index: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: x.reshape(*x.shape[:-1], heads, width)[..., index].reshape(x.shape)

    return Layout(_each(reordered(order)), _each(reordered(np.argsort(order))))


EVERY_OTHER = Layout(
    lambda arrays: [arrays[0][..., 0::2], arrays[0][..., 1::2]],
    lambda arrays: [np.stack(arrays, -1).reshape(*arrays[0].shape[:-1], -1)],
)
"""One array of theirs holds two of ours, feature by feature in turn."""

EXPERTS = Layout(lambda arrays: [np.stack(arrays)], lambda arrays: list(arrays[0]))
"""Ours is one array of theirs that are one an expert."""


def tensor(ours: str, theirs: str, layout: Layout = SAME) -> Iterator[Rule]:
    """Yields the rule of one tensor."""
    yield Rule((ours,), (theirs,), layout)


def linear(ours: str, theirs: str, bias: bool = False, layout: Layout = TRANSPOSED) -> Iterator[Rule]:
    """Yields the rules of a linear layer: its weight and, with `bias`, its bias."""
    for part in ("weight", "bias") if bias else ("weight",):
        yield Rule((f"{ours}.{part}",), (f"{theirs}.{part}",), layout)


def fused(ours: Sequence[str], theirs: str, layout: Layout, bias: bool = False) -> Iterator[Rule]:
    """Yields the rules of several linear layers of ours that are one of theirs."""
    for part in ("weight", "bias") if bias else ("weight",):
        yield Rule(tuple(f"{name}.{part}" for name in ours), (f"{theirs}.{part}",), layout)


def norm(ours: str, theirs: str, bias: bool = False) -> Iterator[Rule]:
    """Yields the rules of a norm: its weight and, with `bias`, its bias."""
    yield from linear(ours, theirs, bias, SAME)


def experts(ours: str, theirs: str, count: int) -> Iterator[Rule]:
    """Yields the rule of the linear layers of a mixture; `theirs` has {} where the expert's number stands."""
    layout = then(TRANSPOSED, EXPERTS)
    yield Rule((f"{ours}.weight",), tuple(f"{theirs.format(e)}.weight" for e in range(count)), layout)
