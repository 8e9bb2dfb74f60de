"""The split: no document on both sides, none lost, stable when documents are added, never empty for a long document."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_core.data import split
from slm_core.data.split import TRAIN, VALIDATION, Piece, Rule

HASH = Rule("hash", 0.1)


def side_of(text: bytes, rule: Rule = HASH) -> int:
    return next(rule.sides(Piece(text), 0))[0]


def test_documents_are_held_out_in_the_asked_share():
    sides = [side_of(f"document {i}".encode()) for i in range(20_000)]
    assert abs(np.mean(sides) - 0.1) < 0.01


def test_a_document_goes_to_the_same_side_wherever_it_stands():
    for i in range(50):
        text = f"document {i}".encode()
        assert next(HASH.sides(Piece(text), 0)) == next(HASH.sides(Piece(text), 12_345))


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab\n é\U0001f600"), max_size=6000))
def test_blocks_are_the_document(text):
    data = text.encode()
    pieces = list(split.blocks(lambda at, n: data[at : at + n], len(data)))
    assert b"".join(piece.text for piece in pieces) == data
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    for piece in pieces:
        piece.text.decode("utf-8")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**32))
def test_blocks_read_alone_are_the_blocks_read_together(first, count, seed):
    generator = np.random.default_rng(seed)
    data = b"\n".join(b"x" * n for n in generator.integers(0, 200, 400))
    read = lambda at, n: data[at : at + n]  # noqa: E731
    together = list(split.blocks(read, len(data)))
    last = split.block_count(len(data))
    first, stop = min(first, last), min(first + count, last)
    alone = list(split.blocks(read, len(data), first, stop))
    assert alone == [piece for piece in together if first <= piece.block < stop]


def test_blocks_start_at_lines():
    data = b"".join(b"line %d\n" % i for i in range(100_000))
    pieces = list(split.blocks(lambda at, n: data[at : at + n], len(data)))
    assert len(pieces) > 100
    assert all(piece.text.endswith(b"\n") for piece in pieces)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_one_long_document_is_held_out_in_the_asked_share(fraction):
    rule, data = Rule("hash", fraction), b"the same line again\n" * 100_000
    size = [0, 0]
    for piece in split.blocks(lambda at, n: data[at : at + n], len(data)):
        for side, text in rule.sides(piece, 0):
            size[side] += len(text)
    assert sum(size) == len(data)
    assert abs(size[VALIDATION] / len(data) - fraction) < 0.01


def test_short_documents_are_whole_and_long_ones_are_not():
    assert [p.block for p in split.document(b"x" * split.LONG)] == [None]
    assert len(list(split.document(b"x" * (split.LONG + 1)))) > 10
    assert list(split.document(b"")) == []


def test_tail_holds_out_the_end_exactly():
    assert split.tail_boundary(1_115_394, 0.1) == 1_003_854
    rule = Rule("tail", 0.1, boundary=9)
    assert list(rule.sides(Piece(b"0123456789"), 0)) == [(TRAIN, b"012345678"), (VALIDATION, b"9")]
    assert list(rule.sides(Piece(b"0123"), 5)) == [(TRAIN, b"0123")]
    assert list(rule.sides(Piece(b"0123"), 9)) == [(VALIDATION, b"0123")]


def test_tail_cuts_no_character():
    text = "ééééé".encode()
    for boundary in range(len(text) + 1):
        parts = list(Rule("tail", 0.1, boundary).sides(Piece(text), 0))
        assert b"".join(part for _, part in parts) == text
        for _, part in parts:
            part.decode("utf-8")
