"""Memory that was freed, given back to the system: glibc keeps it otherwise, scattered over the heap of each thread."""

from __future__ import annotations

import ctypes


def trim_heap() -> None:
    """Give back what was freed; nothing where the C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
