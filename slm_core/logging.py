"""What a user should know once, however often it comes up."""

import functools
import logging


@functools.cache
def say_once(message: str) -> None:
    """Logs a warning the first time that it is given."""
    logging.getLogger("lm-workbench").warning(message)
