"""Logs each warning once, however often it comes up."""

import functools
import logging


@functools.cache
def say_once(message: str) -> None:
    """Logs a warning at the first call with this message."""
    logging.getLogger("lm-workbench").warning(message)
