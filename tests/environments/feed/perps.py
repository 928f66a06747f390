"""Ticks of Feed in which orders add to open perpetuals and bets are made before and after others, with their worth."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.environments.feed.game import FULL_SCALE, Feed, Step, Truth, clip, order
from tests.environments.feed.hour import AGENTS, START, at

SECOND = timedelta(seconds=1)


def play_perps() -> Feed:
    feed = Feed(START, impact_lasts=True)
    for agent in AGENTS:
        feed.user(agent)
    feed.company("ACME", "org-7", [(minute + 0.5, 100.0 + 0.37 * (minute % 17)) for minute in range(-3, 130)])
    feed.market("41001")
    _add_twice(feed, AGENTS[0], at(6), at(20), at(45))
    _add_twice(feed, AGENTS[1], at(8), at(8) + 3 * SECOND, at(30))
    for agent, minute, side in ((AGENTS[2], 10, "no"), (AGENTS[3], 40, "yes"), (AGENTS[2], 50, "yes")):
        feed.buy(agent, "41001", side, 400.0, at(minute) + SECOND)
        truth: Truth = (-1.0, "final") if side == "yes" else (1.0, "final")
        feed.tick(agent, [Step(at(minute), order(f"buy_{side}", side.upper(), "41001", 400), truth)])
    feed.settle("41001", False, at(300))
    return feed


def _add_twice(feed: Feed, agent: str, first: datetime, second: datetime, closed: datetime) -> None:
    """Two orders on the same side and a close: each is worth what its own entry says, the close what the average."""
    entries = [
        feed.open_perp(agent, "ACME", "long", size, time + SECOND)[2] for size, time in ((40, first), (120, second))
    ]
    returned = feed.close_perp(agent, "ACME", closed + SECOND)
    price = feed.quoted("ACME", closed)
    for time, entry in zip((first, second), entries, strict=True):
        worth = clip((price / entry - 1) / FULL_SCALE)
        feed.tick(agent, [Step(time, order("open_long", "long", "ACME"), (worth, "final"))], endTime=time + 2 * SECOND)
    closing = order("close_position", "closed_long", "ACME", 0)
    feed.tick(agent, [Step(closed, closing, (clip(returned / FULL_SCALE), "final"))])
