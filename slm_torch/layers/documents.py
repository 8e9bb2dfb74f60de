"""Documents of packed sequences, which are kept apart."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad


class Documents(NamedTuple):
    """Which document each token belongs to, and where it stands in it.

    Attention, recurrences and convolutions stay in one document, and positions begin anew in each (packing without
    cross-contamination; Krell et al. 2021, https://arxiv.org/abs/2107.02027).

    Args:
      numbers: never fall from one position to the next; equal numbers are one document.
      positions: of each token in its document, from 0; a document that began before the sequence counts from there.
    """

    numbers: Int[Tensor, "batch time"]
    positions: Int[Tensor, "batch time"]


def numbered(begins: Bool[Tensor, "batch time"]) -> Documents:
    """Numbers documents, and the positions in each, from the places where a document begins."""
    place = torch.arange(begins.shape[1], device=begins.device).expand_as(begins)
    first = torch.where(begins, place, 0).cummax(1).values
    return Documents(begins.cumsum(1), place - first)


def changes(documents: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """Tells at which positions the number is another than before; at the first one it is not."""
    return pad(documents[:, 1:] != documents[:, :-1], (1, 0))


def at_positions(
    table: Float[Tensor, "positions width"], start: int, time: int, documents: Documents | None
) -> Float[Tensor, "*batch time width"]:
    """Returns the row of a table for each position: [time, width], or with documents [batch, time, width].

    Args:
      table: one row per position.
      start: position of the first token; without documents.
      time: number of tokens.
      documents: positions begin anew in each.
    """
    return table[start : start + time] if documents is None else table[documents.positions]
