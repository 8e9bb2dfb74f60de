"""Names the tokens that begin and end a text of a run."""

from collections.abc import Mapping
from typing import Any

from slm_core.data.tokenizers import Tokenizer


def end_tokens(tokens: Mapping[str, Any]) -> set[int]:
    """Returns the ids that end a text of a model from elsewhere, which may name none, one or several."""
    named = tokens.get("eos_token_id")
    if named is None:
        return set()
    return set(named) if isinstance(named, list) else {named}


def ends(tokenizer: Tokenizer, tokens: Mapping[str, Any]) -> set[int]:
    """Returns the ids that end a text: those that the model names, else the one of the tokenizer, if it has one."""
    return end_tokens(tokens) or {token for token in (tokenizer.end,) if token is not None}


def prefix_token(tokenizer: Tokenizer, tokens: Mapping[str, Any]) -> int | None:
    """Returns the id that stands before the first token of a text, so that this token can be predicted.

    It is the first that is there: the model's beginning of text, its end of text, the tokenizer's end of a document.
    None: there is none, and the first token of a text is not predicted.
    """
    named = tokens.get("bos_token_id")
    return named if named is not None else min(ends(tokenizer, tokens), default=None)
