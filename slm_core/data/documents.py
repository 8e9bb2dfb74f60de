"""Documents of a token file: where they begin, marks in a row, and sequences that begin with a document."""

import numpy as np

from slm_core.protocols import first_of_document

_PIECE = 2**24  # tokens that are searched at once


def document_starts(tokens: np.ndarray, end: int) -> np.ndarray:
    """Lists the positions at which a document begins, int64, rising: the first token, and each after an `end`."""
    pieces = (np.flatnonzero(tokens[i : i + _PIECE] == end) + i + 1 for i in range(0, len(tokens), _PIECE))
    starts = np.concatenate([np.zeros(1, np.int64), *pieces])
    return starts[starts < len(tokens)]


def packed_starts(starts: np.ndarray, length: int, total: int) -> np.ndarray:
    """Chooses where sequences begin, so that each begins with a document.

    A sequence takes `length` + 1 tokens in a row, with all documents in them. The next one begins with the first
    document that begins after its first `length` tokens. So the rest of a document that a sequence cuts is left out.

    Args:
      starts: of `document_starts`.
      length: tokens of context.
      total: tokens of the file.

    Returns:
      The first position of each sequence, int64, rising.
    """
    following = np.searchsorted(starts, starts + length).tolist()
    whole = int(np.searchsorted(starts, total - length))  # documents after which `length` + 1 tokens are left
    chosen, place = [], 0
    while place < whole:
        chosen.append(place)
        place = following[place]
    return starts[np.array(chosen, np.int64)]


def marked(row: np.ndarray, end: int) -> np.ndarray:
    """Marks the tokens of a row with which a document begins: those after an `end`."""
    begins = np.flatnonzero(row[:-1] == end) + 1
    row[begins] = first_of_document(row[begins])
    return row
