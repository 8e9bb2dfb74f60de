"""The split: no document on both sides, none lost, stable when documents are added, never empty for a long document."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_core.data import split
from slm_core.data.split import TRAIN, VALIDATION, Piece, Rule

HASH = Rule("hash", 0.1)


def reader(data: bytes):
    """Reads bytes as a file does: no place is before its start."""

    def read(at: int, length: int) -> bytes:
        assert at >= 0 and length >= 0
        return data[at : at + length]

    return read


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
    pieces = list(split.blocks(reader(data), len(data)))
    assert b"".join(piece.text for piece in pieces) == data
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    for piece in pieces:
        piece.text.decode("utf-8")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**32))
def test_blocks_read_alone_are_the_blocks_read_together(first, count, seed):
    generator = np.random.default_rng(seed)
    data = b"\n".join(b"x" * n for n in generator.integers(0, 200, 400))
    read = reader(data)
    together = list(split.blocks(read, len(data)))
    last = split.block_count(len(data))
    first, stop = min(first, last), min(first + count, last)
    alone = list(split.blocks(read, len(data), first, stop))
    assert alone == [piece for piece in together if first <= piece.block < stop]


@pytest.mark.parametrize(
    ("size", "nominal"),
    [
        (1, 64), (2047, 64), (2048, 128), (32_768, 2048), (65_536, 4096), (2**17, 4096), (2**20 - 1, 4096),
        (2**20, 8192), (2**23, 65_536), (2**30, 65_536),
    ],
)  # fmt: skip
def test_a_block_is_a_128th_of_a_document_or_a_16th_of_a_small_one(size, nominal):
    assert split.block_size(size) == nominal


def test_a_block_starts_at_a_line_or_else_at_a_character():
    lines, wide, plain = b"123456789\n" * 300, "日".encode() * 1000, b"x" * 3000
    for index in range(40):
        nominal = 64 * index
        assert split.block_start(reader(lines), 3000, 64, index) == -(-nominal // 10) * 10
        assert split.block_start(reader(wide), 3000, 64, index) == -(-nominal // 3) * 3
        assert split.block_start(reader(plain), 3000, 64, index) == nominal
    assert split.block_start(reader(plain), 3000, 64, 47) == 3000


def test_a_line_that_reaches_the_end_leaves_no_empty_block():
    data = b"x" * 200 + b"\n"
    assert [len(piece.text) for piece in split.blocks(reader(data), len(data))] == [64, 64, 73]


def test_what_is_no_utf8_is_cut_after_three_bytes():
    assert split.character_start(b"\x80" * 9, 0) == 3 and split.character_start(b"\x80" * 9, 2) == 5
    assert split.character_start(b"\x80" * 2, 0) == 2 and split.character_start(b"a", 1) == 1


def test_blocks_start_at_lines():
    data = b"".join(b"line %d\n" % i for i in range(100_000))
    pieces = list(split.blocks(reader(data), len(data)))
    assert len(pieces) > 100
    assert all(piece.text.endswith(b"\n") for piece in pieces)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_one_long_document_is_held_out_in_the_asked_share(fraction):
    rule, data = Rule("hash", fraction), b"the same line again\n" * 100_000
    size = [0, 0]
    for piece in split.blocks(reader(data), len(data)):
        for side, text in rule.sides(piece, 0):
            size[side] += len(text)
    assert sum(size) == len(data)
    assert abs(size[VALIDATION] / len(data) - fraction) < 0.01


def test_short_documents_are_whole_and_long_ones_are_not():
    assert [p.block for p in split.document(b"x" * split.LONG)] == [None]
    assert len(list(split.document(b"x" * (split.LONG + 1)))) > 10
    assert list(split.document(b"")) == []
    long = b"".join(b"line %d\n" % i for i in range(40_000))
    assert b"".join(piece.text for piece in split.document(long)) == long


def test_a_hash_of_the_first_bytes_says_which_blocks_are_held_out():
    data = b"".join(b"line %d\n" % i for i in range(1000))
    pieces = list(split.blocks(reader(data), len(data)))
    phase = split.hash_to_fraction(data[:4096])
    assert {piece.phase for piece in pieces} == {phase}
    held = [next(HASH.sides(piece, 0))[0] == VALIDATION for piece in pieces]
    every = [int((i + 1) * 0.1 + phase) - int(i * 0.1 + phase) for i in range(len(pieces))]
    assert held == [bool(each) for each in every] and any(held)
    assert next(HASH.sides(Piece(b"x", block=0, phase=0.95), 0))[0] == VALIDATION
    assert next(HASH.sides(Piece(b"x", block=0, phase=0.05), 0))[0] == TRAIN


def test_a_document_whose_hash_is_the_share_stays():
    text = b"a document"
    assert side_of(text, Rule("hash", split.hash_to_fraction(text))) == TRAIN


def test_tail_holds_out_the_end_exactly():
    assert split.tail_boundary(1_115_394, 0.1) == 1_003_854
    rule = Rule("tail", 0.1, boundary=9)
    assert list(rule.sides(Piece(b"0123456789"), 0)) == [(TRAIN, b"012345678"), (VALIDATION, b"9")]
    assert list(Rule("tail", 0.9, boundary=1).sides(Piece(b"0123"), 0)) == [(TRAIN, b"0"), (VALIDATION, b"123")]
    assert list(rule.sides(Piece(b"0123"), 5)) == [(TRAIN, b"0123")]
    assert list(rule.sides(Piece(b"0123"), 9)) == [(VALIDATION, b"0123")]


def test_tail_cuts_no_character():
    text = "ééééé".encode()
    for boundary in range(len(text) + 1):
        parts = list(Rule("tail", 0.1, boundary).sides(Piece(text), 0))
        assert b"".join(part for _, part in parts) == text
        for _, part in parts:
            part.decode("utf-8")
