"""What the prediction markets of wide boards ask: a question that follows from a market's id."""

from __future__ import annotations

from zlib import crc32

_WHO = (
    *("Acme", "Bolt Labs", "Cora Health", "Dyne Motors", "the city council", "the central bank", "the harbor board"),
    *("Flux Energy", "the film guild", "the rail union", "Halo Games", "the space office", "the football league"),
)
_WHAT = (
    *("announce a merger", "name a new chair", "publish its figures early", "call a strike", "cut its prices"),
    *("open a second office", "withdraw its latest product", "win the court case", "raise its forecast"),
    *("delay the launch", "sign the treaty", "sell its stake", "apologise in public"),
)


def question(market_id: str) -> str:
    """A question, with the market's place on its board in its number: no two of a board are alike."""
    drawn = crc32(market_id.encode())
    who, what = _WHO[drawn % len(_WHO)], _WHAT[drawn // len(_WHO) % len(_WHAT)]
    return f"Will {who} {what} in round {drawn % 9 + 1}{market_id[-1]}?"
