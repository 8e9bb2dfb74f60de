"""Documents of packed sequences, which are kept apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import dynamic_slice_in_dim
from jaxtyping import Bool, Float, Int


class Documents(NamedTuple):
    """Which document each token belongs to, and where it stands in it.

    Attention, recurrences and convolutions stay in one document, and positions begin anew in each (packing without
    cross-contamination; Krell et al. 2021, https://arxiv.org/abs/2107.02027).

    Args:
      numbers: never fall from one position to the next; equal numbers are one document.
      positions: of each token in its document, from 0; a document that began before the sequence counts from there.
    """

    numbers: Int[Array, "batch time"]
    positions: Int[Array, "batch time"]


def numbered(begins: Bool[Array, "batch time"]) -> Documents:
    """Numbers documents, and the positions in each, from the places where a document begins."""
    place = jnp.broadcast_to(jnp.arange(begins.shape[1]), begins.shape)
    first = jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    return Documents(jnp.cumsum(begins, 1), place - first)


def changes(documents: Int[Array, "batch time"]) -> Bool[Array, "batch time"]:
    """Tells at which positions the number is another than before; at the first one it is not."""
    return jnp.pad(documents[:, 1:] != documents[:, :-1], ((0, 0), (1, 0)))


def at_positions(
    table: Float[Array, "positions width"], start: int | Array, time: int, documents: Documents | None
) -> Float[Array, "*batch time width"]:
    """Returns the row of a table for each position: [time, width], or with documents [batch, time, width].

    Args:
      table: one row per position.
      start: position of the first token; without documents.
      time: number of tokens.
      documents: positions begin anew in each.
    """
    return dynamic_slice_in_dim(table, start, time) if documents is None else table[documents.positions]
