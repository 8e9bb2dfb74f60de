"""Section of the schema: the mixer, which lets the tokens of a sequence see each other."""

from dataclasses import dataclass

from slm_core.config.bounds import TOKENS, WIDTH
from slm_core.config.option import option

DELTA = ("delta", "gated_delta", "kda")
"""The kinds whose update first takes the old value of a key out of the state: the delta rule."""
GATED = ("retention", "gla", "gated_delta", "kda", "mamba2")
"""The kinds whose output is multiplied by a gate."""
RECURRENT = ("linear", "retention", "gla", *DELTA, "mamba2")
"""The kinds with a state of `key_dim` by `value_dim` numbers per head, instead of keys and values of all tokens."""


@dataclass(frozen=True)
class Mixer:
    """The mixer of every block: what lets a token see the tokens before it.

    `attention` is softmax attention. The sections `model.attention` and `model.position` describe it, and no other kind
    reads them. All other kinds are recurrences. Each head has a state S, a matrix of `key_dim` by `value_dim`:

        linear, retention, gla, mamba2:  S_t = Diag(a_t) S_{t-1} + k_t v_t^T
        delta, gated_delta, kda:         S_t = Diag(a_t) S_{t-1} - b_t k_t (k_t^T Diag(a_t) S_{t-1}) + b_t k_t v_t^T
        all:                             y_t = S_t^T q_t

    The decay a_t is 1 in `linear` and `delta`, a constant per head in `retention`, a function of the token with one
    number per head in `mamba2` and `gated_delta`, and with one per key channel in `gla` and `kda`. The rate b_t is a
    function of the token. A state does not grow with the context, so neither does the cost of the next token.
    """

    kind: str = option(
        "attention",
        "what lets a token see the tokens before it",
        choices={
            "attention": "softmax attention, as model.attention and model.position say",
            "linear": "linear attention, without decay (Katharopoulos 2020)",
            "retention": "a constant decay per head (RetNet, Sun 2023)",
            "gla": "gated linear attention: a learned decay per channel (Yang 2023)",
            "delta": "the delta rule: a key's new value replaces its old one (DeltaNet, Yang 2024)",
            "gated_delta": "the delta rule with a learned decay per head (Gated DeltaNet, Yang 2024)",
            "kda": "the delta rule with a learned decay per channel (Kimi Delta Attention 2025)",
            "mamba2": "a state space model with a learned decay per head (Mamba-2, Dao 2024)",
        },
    )
    n_heads: int = option(4, "heads, each with a state", read_by={"kind": RECURRENT}, low=1, high=WIDTH)
    key_dim: int | None = option(
        None, "width of a head's keys and queries; unset: d_model / n_heads", read_by={"kind": RECURRENT}, low=1,
        high=WIDTH,
    )  # fmt: skip
    key_heads: int | None = option(
        None,
        "heads of queries and keys, each for n_heads / key_heads heads of values; unset: n_heads, in mamba2 1",
        read_by={"kind": RECURRENT},
        low=1,
        high=WIDTH,
    )
    value_dim: int | None = option(
        None,
        "width of a head's values; unset: d_model / n_heads, in mamba2 twice that",
        read_by={"kind": RECURRENT},
        low=1,
        high=WIDTH,
    )
    decay_rank: int = option(
        16, "inner width of the matrices that make the decay per channel", read_by={"kind": ("gla", "kda")}, low=1,
        high=WIDTH,
    )  # fmt: skip
    convolution: int | None = option(
        None,
        "tokens that the short causal convolution before the recurrence sees; 0: none; unset: 4 in delta, gated_delta,"
        " kda and mamba2, 0 in the others",
        read_by={"kind": RECURRENT},
        low=0,
        high=64,
    )
    convolution_bias: bool = option(
        False, "a bias in that convolution (Mamba-2's own code)", read_by={"kind": RECURRENT}
    )
    chunk: int = option(
        64, "tokens that are computed at once; the result is the same", read_by={"kind": RECURRENT}, low=1, high=TOKENS
    )
