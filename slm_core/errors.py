"""The exceptions that a user can mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend. Its text is one line: the field, the value, the reason and the remedy.

    Entry points print it without a traceback and exit with status 2.
    """


class ResumableError(UserError):
    """A failure after which the same command continues where it stopped: what is finished is kept."""


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Returns " (did you mean X?)" for the candidate closest to `word`, or "" if none is close."""
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""
