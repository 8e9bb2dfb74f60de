"""Ctrl-C and SIGTERM, turned into a request that the loop reads between steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class StopRequest:
    """`requested` turns True with the first SIGINT or SIGTERM; a second raises KeyboardInterrupt, a third kills."""

    def __init__(self, announce: Callable[[], None]):
        self.requested = False
        self._announce = announce

    def _handle(self, number: int, frame: object) -> None:
        if self.requested:
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.requested = True
        self._announce()


@contextlib.contextmanager
def stop_on_signal(announce: Callable[[], None]) -> Iterator[StopRequest]:
    """Catches SIGINT and SIGTERM inside the block; `announce` is called from the handler, so it must not wait.

    Outside the main thread, where Python allows no handlers, the request is simply never made.
    """
    stop = StopRequest(announce)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
