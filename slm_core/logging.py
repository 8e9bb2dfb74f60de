"""Tells the user what goes on, on stderr; and each warning once, however often it comes up."""

import functools
import logging
import sys


@functools.cache
def say_once(message: str) -> None:
    """Logs a warning at the first call with this message."""
    logging.getLogger("lm-workbench").warning(message)


def say(line: str) -> None:
    """Prints a line about what goes on, beside the output of the command."""
    print(line, file=sys.stderr, flush=True)
