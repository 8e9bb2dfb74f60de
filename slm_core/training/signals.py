"""Turns Ctrl-C and SIGTERM into a request that the loop reads between steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class StopRequest:
    """`requested` becomes True with the first SIGINT or SIGTERM. A second raises KeyboardInterrupt, a third kills."""

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
    """Catches SIGINT and SIGTERM inside the block. The handler calls `announce`, which must not wait.

    Python allows handlers in the main thread only. In another thread the request is never made.
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
