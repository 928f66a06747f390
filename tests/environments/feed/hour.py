"""An hour of the small Feed with everything that occurs in it, and the true worth of every step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.environments.feed.game import FULL_SCALE, Feed, Step, Truth, call, clip, order

START = datetime(2026, 7, 15, 10, 0, tzinfo=UTC)
WINDOW = "2026-07-15T10:00"
AGENTS, NPCS = ("31001", "31002", "31003", "31004"), ("mira-vale", "otto-finch")
UNKNOWN: Truth = (None, "unknown")
INVALID: Truth = (None, "invalid")


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def play_hour() -> Feed:
    """The hour; each part writes ticks of its own agents, and settles what it says."""
    feed = Feed(START)
    for agent in AGENTS:
        feed.user(agent)
    feed.company("ACME", "org-7", [(-5, 80.0), (9, 100.0), (20, 104.0), (40, 90.0), (72, 97.0), (102, 101.5)])
    feed.company("ZED", "zed-labs", [(-5, 10.0), (30, 10.5)])
    for market in ("41001", "41002", "41003", "41004", "41005", "41006"):
        feed.market(market)
    feed.market("41007", yes=9000.0, no=1000.0)
    _bets(feed)
    _sales(feed)
    _perps(feed)
    _others(feed)
    return feed


def _bets(feed: Feed) -> None:
    """Bets on a market that resolves hours later, on one that nobody lost, on a cancelled and on an open one."""
    stakes = {
        "31001": [("41001", "yes", 40.0), ("41003", "yes", 25.0)],
        "31002": [("41001", "no", 60.0), ("41004", "yes", 30.0)],
        "mira-vale": [("41001", "yes", 80.0), ("41002", "yes", 50.0)],
        "otto-finch": [("41001", "no", 20.0), ("41007", "yes", 90.0)],
    }
    made: list[tuple[str, int, str, str, str, float]] = []
    for place, (agent, bets) in enumerate(stakes.items()):
        steps = []
        for number, (market, side, dollars) in enumerate(bets):
            time = at(2 + 3 * place + number)
            feed.buy(agent, market, side, dollars, time + timedelta(seconds=1))
            amount: Any = {"41001": dollars, "41002": str(dollars), "41003": 0, "41004": None}.get(market, dollars)
            steps.append(Step(time, order(f"buy_{side}", side.upper(), market, amount), UNKNOWN, [call("{}")]))
            made.append((agent, number, market, side, "", dollars))
        role = {} if agent in AGENTS else {"npcRole": "insider", "finalBalance": 0.0, "finalPnL": 0.0}
        name = feed.tick(agent, steps, **role)
        made[-len(bets) :] = [(*row[:4], name, row[5]) for row in made[-len(bets) :]]
    earned = {
        "41001": feed.settle("41001", True, at(300)),
        "41002": feed.settle("41002", True, at(61)),
        "41003": feed.settle("41003", None, at(90)),
        "41007": feed.settle("41007", False, at(70)),
    }
    feed.leave_open("41004")
    for agent, number, market, side, name, dollars in made:
        if market == "41004":
            feed.truth[name, number] = (None, "pending")
        else:
            feed.truth[name, number] = (clip(earned[market][agent, side] / dollars), "final")


def _sales(feed: Feed) -> None:
    """A purchase that is sold minutes later, and one whose shares are bought in two orders and kept."""
    _, _, _ = feed.buy("31003", "41005", "yes", 40.0, at(12))
    feed.buy("31004", "41005", "yes", 500.0, at(14))
    returned = feed.sell("31003", "41005", "yes", at(16))
    feed.tick(
        "31003", [Step(at(12) - timedelta(seconds=1), order("buy_yes", "YES", "41005", 40), (clip(returned), "final"))]
    )
    sale = order("sell_yes", "sold_YES", "41005", 0)
    feed.tick("31003", [Step(at(16) - timedelta(seconds=1), sale, (clip(returned), "final"))])
    feed.settle("41005", False, at(400))
    first, shares, _ = feed.buy("31003", "41006", "no", 30.0, at(18))
    _, more, _ = feed.buy("31003", "41006", "no", 120.0, at(19))
    feed.buy("31004", "41006", "yes", 77.0, at(20))
    pnl = feed.settle("41006", False, at(59))["31003", "no"]
    per_share = (pnl + first.gross) / (shares + more)
    truths: list[Truth] = [
        (clip((part * per_share - cost) / cost), "final") for part, cost in ((shares, 30.0), (more, 120.0))
    ]
    for minute, amount, truth in zip((18, 19), (30, 120), truths, strict=True):
        feed.tick("31003", [Step(at(minute) - timedelta(seconds=1), order("buy_no", "NO", "41006", amount), truth)])


def _perps(feed: Feed) -> None:
    """A long that is held, a short that is closed, one that is turned round, and one whose horizon has no price."""

    def worth(returned: float) -> Truth:
        return clip(returned / FULL_SCALE), "final"

    time = at(10)
    feed.open_perp("31001", "ACME", "long", 50.0, time + timedelta(seconds=1))
    later = feed.later("ACME", time + timedelta(seconds=1, milliseconds=40))
    assert later is not None
    feed.tick("31001", [Step(time, order("open_long", "long", "ACME", 50), worth(later / 100.0 - 1))])
    feed.open_perp("31002", "ACME", "short", 20.0, at(21))
    returned = feed.close_perp("31002", "ACME", at(45))
    feed.tick("31002", [Step(at(21) - timedelta(seconds=1), order("open_short", "short", "ACME", 20), worth(returned))])
    closing = order("close_position", "closed_short", "ACME", 0)
    feed.tick("31002", [Step(at(45) - timedelta(seconds=1), closing, worth(returned))])
    feed.open_perp("31003", "ACME", "long", 40.0, at(22))
    realised, rest, price = feed.open_perp("31003", "ACME", "short", 100.0, at(41))
    first = worth(90.0 / 104.0 - 1)
    assert (realised, rest, price) == (40.0 * (90.0 / 104.0 - 1), 60.0, 90.0)
    turned = worth((realised + rest * -(101.5 / 90.0 - 1)) / 100.0)
    feed.tick("31003", [Step(at(22) - timedelta(seconds=1), order("open_long", "long", "ACME", 40), first)])
    feed.tick("31003", [Step(at(41) - timedelta(seconds=1), order("open_short", "short", "ACME", 100), turned)])
    feed.open_perp("31004", "ZED", "long", 30.0, at(31))
    waiting: Truth = (None, "pending")
    feed.tick("31004", [Step(at(31) - timedelta(seconds=1), order("open_long", "long", "ZED", 30), waiting)])


def _others(feed: Feed) -> None:
    """Refused attempts, fallbacks, failures, social actions, unfinished steps, trades by hand, and empty ticks."""
    feed.buy("31004", "41001", "yes", 10.0, at(50))  # by hand, in no tick
    social = {"actionType": "POST", "success": True, "parameters": {"content": "hi"}, "result": {"success": True}}
    thrown = order("buy_yes", "YES", "41001", success=False, error="market closed", result={})
    returned = order("open_long", "long", "ACME", result={"success": False, "error": "too large"}, success=False)
    silent = order("buy_yes", "YES", "41001", success=False, result={})
    fallback = {
        "actionType": "COMMENT",
        "success": True,
        "reasoning": "Parser fallback selected the first post.",
        "parameters": {"postId": "335"},
        "result": {"success": True},
    }
    pending = {"actionType": "pending", "success": False, "parameters": {}, "result": {}}
    lost = order("buy_yes", "YES", "41002", 33)  # the game's own record has no such trade
    parts = [
        (social, UNKNOWN, [call("{}")]),
        (thrown, INVALID, [call("I wait"), call('{"action":"TRADE"}', "P + feedback")]),
        (returned, INVALID, [call("{}")]),
        (silent, INVALID, []),
        (lost, UNKNOWN, [call("<think>x</think>{}", purpose=None), call("{}", purpose=None)]),
    ]
    feed.tick("31004", [Step(at(52 + n), action, truth, calls) for n, (action, truth, calls) in enumerate(parts)])
    feed.tick("31002", [Step(at(53), fallback, INVALID, [call("no"), call("json"), call("")])])
    feed.tick("otto-finch", [Step(at(54), {"actionType": name, "success": True, "parameters": {}}, UNKNOWN) for name in
              ("REPLY_COMMENT", "LIKE", "REPOST", "FOLLOW", "UNFOLLOW", "DM", "REPLY_CHAT", "GROUP_MESSAGE",
               "CREATE_GROUP", "LEAVE_GROUP", "SEND_MONEY", "REQUEST_PAYMENT", "SHARE_INFORMATION")])  # fmt: skip
    feed.tick("31001", [])
    feed.tick("31001", [Step(at(55), pending, UNKNOWN)], windowId=None, finalPnL=None)
