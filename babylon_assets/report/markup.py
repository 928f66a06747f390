"""HTML that cannot be broken by what it shows: every text is escaped unless it was made here.

Names, reasons and ids come from agents and from other people's services. `element` escapes what is not `Html`;
characters that would reorder or hide text, or that no file can hold, are shown as a replacement character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

# Control characters, marks that override the direction of writing (a name could show itself backwards and take its
# neighbours along), byte order marks, lone surrogates, which UTF-8 has no form for, and two that are never characters.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)
#: A longer text is cut: the ledger has the whole of it.
LONGEST = 400
VOID = {"meta", "br", "line", "circle", "path", "rect", "polyline"}


class Html(str):
    """Text that is markup already; made by this module only."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as text of a page, escaped; a text that is too long is cut and says so. None is nothing."""
    if value is None or isinstance(value, Html):
        return value or Html()
    shown = str(value)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}… ({len(shown):,} characters)"
    return Html(escape(_UNFIT.sub("\ufffd", shown)))


def join(parts: Iterable[object]) -> Html:
    """Several pieces, one after the other."""
    return Html("".join(map(text, parts)))


def element(tag: str, /, *content: object, **attributes: object) -> Html:
    """An element. `class_` is `class`, and `_` in a name is `-`; an attribute that is None or False is left out.

    Args:
        tag: the element's name, from the program and never from data.
        content: texts, escaped, and `Html`, taken as it is.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in VOID and not content:
        return Html(f"<{tag}{given}>") if tag in ("meta", "br") else Html(f"<{tag}{given}/>")
    return Html(f"<{tag}{given}>{join(content)}</{tag}>")


def trusted(markup: str) -> Html:
    """Markup that the program wrote, such as a style sheet or coordinates; never with a text of somebody else in it."""
    return Html(markup)
