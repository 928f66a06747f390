"""Threads without which the gateway would answer nobody, or record nothing.

What such a thread fails of is a fault of this product or of a library. It is logged once; `server` then ends the
process, so that whoever started it starts it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class LastingThread(threading.Thread):
    """A daemon thread that goes on for as long as the gateway does.

    Attributes:
        failed: its work raised.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.failed = False

    def run(self) -> None:
        try:
            super().run()
        except BaseException:  # a panic of a library as well
            self.failed = True
            _log.critical("the thread %s failed, so that the gateway ends", self.name, exc_info=True)
