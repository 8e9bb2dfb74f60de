"""Rules say, as data, how the tensors of a Hugging Face checkpoint correspond to our weights, in both directions.

Our linear weights are [in, out], those of experts [experts, in, out]; queries and keys turn in half-split pairs. In a
checkpoint, linear weights are [out, in]. A rule's layout says what is fused or interleaved there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Arrays = list[np.ndarray]


class Layout(NamedTuple):
    """Rearranges the arrays of a rule in either direction. Each function undoes the other."""

    from_hf: Callable[[Arrays], Arrays]
    to_hf: Callable[[Arrays], Arrays]


class Rule(NamedTuple):
    """Says which of our weights are made of which tensors of a checkpoint, and the other way round."""

    names: tuple[str, ...]
    hf_names: tuple[str, ...]
    layout: Layout


def _each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: [function(array) for array in arrays]


SAME = Layout(list, list)
TRANSPOSED = Layout(_each(lambda x: x.T), _each(lambda x: x.T))
"""Also right for a bias: a vector is its own transpose."""


def then(first: Layout, second: Layout) -> Layout:
    """Chains two layouts: from the checkpoint by `first`, then by `second`."""
    return Layout(
        lambda arrays: second.from_hf(first.from_hf(arrays)), lambda arrays: first.to_hf(second.to_hf(arrays))
    )


def split(sizes: Sequence[int], axis: int = -1) -> Layout:
    """Splits one array of the checkpoint into several weights, one behind the other along an axis of the weights."""
    edges = np.cumsum(sizes)[:-1]
    return Layout(lambda arrays: np.split(arrays[0], edges, axis), lambda arrays: [np.concatenate(arrays, axis)])


def split_heads(heads: int, sizes: Sequence[int]) -> Layout:
    """Splits one array of the checkpoint, in which each head has the features of several weights, one after the other.

    Args:
      heads: number of heads.
      sizes: features of each weight in one head.
    """
    edges = np.cumsum(sizes)[:-1]

    def from_hf(arrays: Arrays) -> Arrays:
        lead = arrays[0].shape[:-1]
        pieces = np.split(arrays[0].reshape(*lead, heads, sum(sizes)), edges, -1)
        return [piece.reshape(*lead, -1) for piece in pieces]

    def to_hf(arrays: Arrays) -> Arrays:
        lead = arrays[0].shape[:-1]
        pieces = [a.reshape(*lead, heads, size) for a, size in zip(arrays, sizes, strict=True)]
        return [np.concatenate(pieces, -1).reshape(*lead, -1)]

    return Layout(from_hf, to_hf)


def half_split(heads: int, width: int, rotary: int, start: int = 0) -> Layout:
    """Reorders rotary features of the last axis from pairs (0, 1), (2, 3), ... to ours: (0, n/2), (1, n/2 + 1), ...

    Args:
      heads, width: the last axis is heads of this width.
      rotary: the number of features of a head that turn.
      start: the first of them.
    """
    order = np.arange(width)
    order[start : start + rotary] = start + np.concatenate([np.arange(0, rotary, 2), np.arange(1, rotary, 2)])
    return reordered(heads, width, order)


def swapped_halves(heads: int, width: int, rotary: int) -> Layout:
    """Swaps the two halves of the rotary features of each head, which come first. Both then turn the other way."""
    order = np.arange(width)
    order[:rotary] = np.roll(order[:rotary], rotary // 2)
    return reordered(heads, width, order)


def reordered(heads: int, width: int, order: np.ndarray) -> Layout:
    """Reorders the features of each head: feature i is feature order[i] of the checkpoint."""

    def by(index: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: x.reshape(*x.shape[:-1], heads, width)[..., index].reshape(x.shape)

    return Layout(_each(by(order)), _each(by(np.argsort(order))))


TAPS = Layout(_each(lambda x: x[:, 0].T), _each(lambda x: x.T[:, None]))
"""Turns the weight of a convolution of each channel by itself, [channels, 1, taps], into ours: [taps, channels]."""
ONE_PLUS = Layout(_each(lambda x: x - 1), _each(lambda x: x + 1))
"""Turns the weight w of a norm into that of one that multiplies by 1 + w."""
EVERY_OTHER = Layout(
    lambda arrays: [arrays[0][..., 0::2], arrays[0][..., 1::2]],
    lambda arrays: [np.stack(arrays, -1).reshape(*arrays[0].shape[:-1], -1)],
)
"""Splits one array of the checkpoint into two weights, whose features alternate in it."""

EXPERTS = Layout(lambda arrays: [np.stack(arrays)], lambda arrays: list(arrays[0]))
"""Stacks the arrays of the checkpoint, one per expert, into one weight."""


def tensor(name: str, hf_name: str, layout: Layout = SAME) -> Iterator[Rule]:
    """Yields the rule of one tensor."""
    yield Rule((name,), (hf_name,), layout)


def linear(path: str, hf_path: str, bias: bool = False, layout: Layout = TRANSPOSED) -> Iterator[Rule]:
    """Yields the rules of a linear layer: its weight and, with `bias`, its bias."""
    for part in ("weight", "bias") if bias else ("weight",):
        yield Rule((f"{path}.{part}",), (f"{hf_path}.{part}",), layout)


def fused(paths: Sequence[str], hf_path: str, layout: Layout, bias: bool = False) -> Iterator[Rule]:
    """Yields the rules of several linear layers that are one in the checkpoint."""
    for part in ("weight", "bias") if bias else ("weight",):
        yield Rule(tuple(f"{path}.{part}" for path in paths), (f"{hf_path}.{part}",), layout)


def norm(path: str, hf_path: str, bias: bool = False) -> Iterator[Rule]:
    """Yields the rules of a norm: its weight and, with `bias`, its bias."""
    yield from linear(path, hf_path, bias, SAME)


def experts(path: str, hf_path: str, count: int) -> Iterator[Rule]:
    """Yields the rule of one linear layer of all experts. `hf_path` has {} in the place of the expert's number."""
    layout = then(TRANSPOSED, EXPERTS)
    yield Rule((f"{path}.weight",), tuple(f"{hf_path.format(e)}.weight" for e in range(count)), layout)
