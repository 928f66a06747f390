"""Characters that were cut in two: half of a surrogate pair in JSON, or bytes that are no UTF-8 any more."""

from __future__ import annotations

import re

#: An escape in JSON; a surrogate without its other half matches `half`.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_REPLACEMENT = "\ufffd"


def replace_halves(text: bytes) -> tuple[bytes, int]:
    """JSON with the replacement character for each part of a character that was cut, and how many there were."""
    count = 0

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal count
        count += match["half"] is not None
        return match[0] if match["half"] is None else b"\\ufffd"

    try:
        text.decode()
    except UnicodeDecodeError:
        before = text.decode("utf-8", "ignore").count(_REPLACEMENT)
        whole = text.decode("utf-8", "replace")
        text, count = whole.encode(), whole.count(_REPLACEMENT) - before
    return _ESCAPES.sub(replace, text), count
