"""The words of the game's record: what an action's name, a market type, a side and a trade's action mean.

The game adds words as it grows. One that is not known here means nothing: it is counted by name, and what it stands for
is worth nothing that anybody knows.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

MarketType = Literal["prediction", "perp"]
Side = Literal["yes", "no", "long", "short"]
#: `unfinished` is a step that the recorder never closed, `refused` one whose answer was no action at all.
Kind = Literal["trade", "hold", "social", "unfinished", "refused"]

_HOLDS = frozenset({"HOLD", "WAIT", "PASS", "NONE", "NO_ACTION", "NOOP", "FINISH"})
_TRADES = re.compile(r"TRAD|BUY|SELL|LONG|SHORT|PERP|OPEN_|CLOSE_|SHARES|POSITION")
_SOCIAL = re.compile(
    r"(?:^|_)(POST|REPOST|COMMENT|REPLY|LIKE|UNLIKE|REACT|FOLLOW|UNFOLLOW|DM|MESSAGE|CHAT|GROUP|INVITE|MONEY|PAYMENT"
    r"|INFORMATION|QUOTE|SHARE|MENTION|BLOCK|MUTE)(?:_|$)"
)
_POSTS = re.compile(r"(?:^|_)(POST|REPOST|COMMENT|REPLY|QUOTE|MENTION)(?:_|$)")
_OTHERS: dict[str, Kind] = {"PENDING": "unfinished", "INVALID_ACTION": "refused"}
_CLOSES = re.compile(r"CLOSE|SELL|SOLD")
_OPENS = re.compile(r"BUY|OPEN|LONG|SHORT|BOUGHT")
_SIDE_IN_NAME = re.compile(r"(?:^|_)(YES|NO|LONG|SHORT)(?:_|$)")
_SIDE_WORD = re.compile(r"(?:(?:buy|bought|sell|sold|open|opened|close|closed)_)?(?P<side>yes|no|long|short)")
_CLOSING_WORD = re.compile(r"(?:sell|sold|close|closed)_(?:yes|no|long|short|position)|close_all|close|sell")
_SIDES: dict[str, Side] = {"yes": "yes", "no": "no", "long": "long", "short": "short"}
MARKET_OF_SIDE: dict[Side, MarketType] = {"yes": "prediction", "no": "prediction", "long": "perp", "short": "perp"}


class ActionWord(NamedTuple):
    """What an action's name says.

    Attributes:
        kind: None where the name is not known.
        side: the side that it names, if it does.
        closes: it ends a position.
        surely_opens: it opens one, whatever its parameters say.
        decides: it may also stand for the decision not to trade.
    """

    kind: Kind | None
    side: Side | None
    closes: bool
    surely_opens: bool
    decides: bool


class SideWord(NamedTuple):
    """What a side's word says; the side is None for `close_position`, which names none."""

    side: Side | None
    closes: bool


@lru_cache(maxsize=4096)
def read_action(name: str) -> ActionWord:
    """The meaning of an action's name, in any case."""
    word = name.strip().upper()
    side = _SIDE_IN_NAME.search(word)
    return ActionWord(
        _kind(word),
        _SIDES[side[1].lower()] if side else None,
        _CLOSES.search(word) is not None,
        re.search(r"BUY|^OPEN_", word) is not None,
        "DECISION" in word,
    )


def _kind(word: str) -> Kind | None:
    if word in _HOLDS:
        return "hold"
    if word in _OTHERS:
        return _OTHERS[word]
    if _SOCIAL.search(word) and not re.search(r"SHARES|POSITION|TRAD|BUY|SELL", word):
        return "social"
    return "trade" if _TRADES.search(word) else None


@lru_cache(maxsize=4096)
def comparable_kind(name: str) -> str:
    """What an action is compared with, by its name: `post`, `social`, or empty for trades, holds and what is no action.

    Whoever trades might have held, and whoever gave no valid answer might have done either.
    """
    if read_action(name).kind != "social":
        return ""
    return "post" if _POSTS.search(name.strip().upper()) else "social"


@lru_cache(maxsize=4096)
def read_market_type(word: str) -> MarketType | None:
    """The kind of market that a word stands for; None for one that is not known."""
    lower = word.strip().lower()
    return "perp" if lower.startswith("perp") else "prediction" if lower.startswith("prediction") else None


@lru_cache(maxsize=4096)
def read_side(word: str) -> SideWord | None:
    """The side that a word stands for, such as `YES`, `sell_no`, `open_long`, `closed_short`; None: it is not known."""
    lower = word.strip().lower()
    side = _SIDE_WORD.fullmatch(lower)
    closes = _CLOSING_WORD.fullmatch(lower) is not None
    if side is None and not closes:
        return None
    return SideWord(_SIDES[side["side"]] if side else None, closes)


@lru_cache(maxsize=4096)
def closes_position(action: str) -> bool | None:
    """Whether the `action` of a trade's own row ends a position; None: the word is not known."""
    word = action.strip().upper()
    return True if _CLOSES.search(word) else False if _OPENS.search(word) else None
