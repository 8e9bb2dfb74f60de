"""Layouts of tensors are right in one direction, and the other direction reverses them."""

import numpy as np
import pytest

from slm_core.hf.rules import (
    EVERY_OTHER,
    EXPERTS,
    SAME,
    TRANSPOSED,
    half_split,
    split,
    split_heads,
    swapped_halves,
    then,
)

LAYOUTS = {
    "same": (SAME, [(4,)]),
    "transposed": (TRANSPOSED, [(4, 6)]),
    "transposed bias": (TRANSPOSED, [(4,)]),
    "split": (then(TRANSPOSED, split([2, 3, 1])), [(6, 5)]),
    "split bias": (then(TRANSPOSED, split([2, 3, 1])), [(6,)]),
    "heads": (then(TRANSPOSED, split_heads(3, [2, 2, 1])), [(15, 4)]),
    "half split": (half_split(3, 8, 4), [(5, 24)]),
    "half split of last features": (half_split(3, 8, 4, 4), [(5, 24)]),
    "swapped halves": (swapped_halves(3, 8, 4), [(5, 24)]),
    "every other": (EVERY_OTHER, [(2, 5, 8)]),
    "experts": (then(TRANSPOSED, EXPERTS), [(4, 6)] * 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_direction_of_a_layout_reverses_the_other(name):
    layout, shapes = LAYOUTS[name]
    hf_tensors = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(shapes)]
    back = layout.to_hf(layout.from_hf(hf_tensors))
    assert len(back) == len(hf_tensors)
    assert all(np.array_equal(a, b) for a, b in zip(back, hf_tensors, strict=True))


def test_each_head_has_every_part():
    # Two heads, queries of 2 features and keys of 1: q q k, q q k.
    q, k = split_heads(2, [2, 1]).from_hf([np.arange(6)])
    assert q.tolist() == [0, 1, 3, 4] and k.tolist() == [2, 5]


def test_pairs_become_halves():
    """A head of 2 plain features and 2 rotary pairs (2, 3), (4, 5): the firsts come first, then the seconds."""
    assert half_split(1, 6, 4).from_hf([np.arange(6)])[0].tolist() == [0, 2, 1, 3, 4, 5]
    assert half_split(1, 6, 4, 2).from_hf([np.arange(6)])[0].tolist() == [0, 1, 2, 4, 3, 5]
    assert swapped_halves(1, 6, 4).from_hf([np.arange(6)])[0].tolist() == [2, 3, 0, 1, 4, 5]


def test_every_other():
    gate, up = EVERY_OTHER.from_hf([np.arange(6)])
    assert gate.tolist() == [0, 2, 4] and up.tolist() == [1, 3, 5]
