"""Prices that the game quoted, by instrument and time, and whether a trade's own price may be believed beside them.

A trade moves the price, and its agent may choose when. So a price counts only where quotes that the trade did not make
agree with it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from math import isfinite

#: A quote that comes later than this, in milliseconds, says nothing of a trade.
SOON_MS = 15 * 60 * 1000
#: How far a perpetual's price may lie from the quote before it, as a share of that.
PERP_SLACK = 0.05
#: The same of a prediction share, beside quotes before and after the trade.
SHARE_SLACK = 0.02


class Quotes:
    """Quotes of instruments: a time in epoch milliseconds and a price each, in any order; no price is 0 or less."""

    def __init__(self, quotes: Iterable[tuple[str, int, float]]) -> None:
        self._times: dict[str, list[int]] = defaultdict(list)
        self._prices: dict[str, list[float]] = defaultdict(list)
        for instrument, at, price in sorted(quotes, key=lambda quote: quote[1]):
            if price > 0 and isfinite(price):
                self._times[instrument].append(at)
                self._prices[instrument].append(price)

    def knows(self, instrument: str) -> bool:
        return instrument in self._times

    def last(self, instrument: str, at: int) -> float | None:
        """The last quote up to a time; of two at the same time the later row."""
        place = bisect_right(self._times.get(instrument, []), at)
        return self._prices[instrument][place - 1] if place else None

    def around(self, instrument: str, since: int, until: int) -> list[float]:
        """The quotes at the last time up to `since`, and those after it up to `until` but the last of them.

        That one may be the effect of the trade itself. Without a quote up to `since`, the first one soon after.
        """
        times, prices = self._times.get(instrument, []), self._prices.get(instrument, [])
        end = bisect_right(times, since)
        if not end:
            return prices[: 1 if times and times[0] <= until + SOON_MS else 0]
        return prices[bisect_left(times, times[end - 1]) : max(end, bisect_right(times, until) - 1)]

    def between(self, instrument: str, since: int, until: int) -> list[float]:
        """The quotes after `since` up to `until`, and the first one after that."""
        times, prices = self._times.get(instrument, []), self._prices.get(instrument, [])
        return prices[bisect_right(times, since) : bisect_right(times, until) + 1]

    def first(self, instrument: str, at: int) -> float | None:
        """The first quote from a time on."""
        times = self._times.get(instrument, [])
        place = bisect_left(times, at)
        return self._prices[instrument][place] if place < len(times) else None


def believed_perp_price(
    price: float, quotes: Quotes, ticker: str, since: int, until: int, *, closes: bool = False
) -> float | None:
    """A trade's own price of a perpetual, if a quote around it agrees; None otherwise.

    A ticker that was never quoted leaves the record's own price as all that is known of an entry. What a position
    `closes` at decides what it was worth, and is never believed without a quote.
    """
    if not (price > 0 and isfinite(price)):
        return None
    around = quotes.around(ticker, since, until)
    if not around:
        return None if closes or quotes.knows(ticker) else price
    return price if any(abs(price / quote - 1) <= PERP_SLACK for quote in around) else None


def believed_share_price(
    price: float, quotes: Quotes, market_side: str, since: int, until: int, *, closes: bool = False
) -> float | None:
    """A trade's own price of a share, if the probabilities quoted around it agree; None otherwise.

    Dollars per share are the odds p / (1 - p) of its side, or the probability p itself; a fill lies between those
    before and after it.

    Args:
        market_side: what the quotes are kept under, a side of a market.
        closes: it is the price of a sale, which is never believed without a quote.
    """
    if not (price > 0 and isfinite(price)):
        return None
    before = quotes.last(market_side, since)
    likely = [
        quote for quote in (before, *quotes.between(market_side, since, until)) if quote is not None and quote < 1
    ]
    if not likely:
        return None if closes else price
    low = min(likely) if before is not None else 0.0
    high = max(quote / (1 - quote) for quote in likely)
    return price if low * (1 - SHARE_SLACK) <= price <= high * (1 + SHARE_SLACK) else None
