"""A day of Feed, 24 hours of 40 agents and 12 NPCs, with the true worth of every step.

ACME rises all day, so that who goes long earns what who goes short loses. Every agent opens a position once an hour and
closes it; NPCs bet on a market of the hour, which resolves after the day; there are posts, refused attempts and
answers that the game could not read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from tests.environments.feed.game import FULL_SCALE, Feed, Row, Step, Truth, call, clip, order
from tests.environments.feed.hour import INVALID, UNKNOWN

START = datetime(2026, 7, 15, 0, 0, tzinfo=UTC)
HOURS, MINUTES = 24, 60
AGENTS = [f"{number}" for number in range(50001, 50041)]
NPCS = [f"npc-{chr(97 + number)}" for number in range(12)]
TICKER = "ACME"


def prompt(agent: str, what: str) -> str:
    """What an agent is shown: short, so that a model of a minute's making reads it."""
    return f"{agent}. {TICKER} trades. You may {what}."


def answer(side: str) -> str:
    """An answer in the game's form."""
    parameters = {"marketType": "perp", "marketId": TICKER, "side": side, "amount": 40}
    return json.dumps({"thought": "so", "action": "TRADE", "parameters": parameters})


def play_day() -> Feed:
    """The whole day; `truth` has every step of it."""
    feed = Feed(START, impact_lasts=True)
    for agent in AGENTS:
        feed.user(agent)
    prices = [(minute + 0.5, 100.0 * 1.0004**minute) for minute in range(-3, HOURS * MINUTES + 180)]
    feed.company(TICKER, "org-7", prices)
    for hour in range(HOURS):
        feed.start = START + timedelta(hours=hour)
        for place, agent in enumerate(AGENTS):
            _swing(feed, agent, hour, place)
        _bets(feed, hour)
    return feed


def _swing(feed: Feed, agent: str, hour: int, place: int) -> None:
    """An agent opens a position, long in every other hour, and closes it half an hour later; some fail, some post."""
    begun = feed.start + timedelta(minutes=1 + 0.5 * place)
    if (hour + place) % 13 == 0:
        refused = order("open_long", "long", TICKER, success=False, error="no balance", result={})
        said = [call(answer("open_long"), prompt(agent, "open"))]
        feed.tick(agent, [Step(begun, refused, INVALID, said)])
        return
    side = "long" if (hour + place) % 2 else "short"
    calls = [call(answer(f"open_{side}"), prompt(agent, "open"))]
    if (hour + place) % 5 == 0:
        calls.insert(0, call("I wait", prompt(agent, "open")))
    feed.open_perp(agent, TICKER, side, 40.0, begun + timedelta(seconds=1))
    name = feed.tick(agent, [Step(begun, order(f"open_{side}", side, TICKER), UNKNOWN, calls)])
    entry = feed.perps[agent, TICKER].entry
    ended = begun + timedelta(minutes=30)
    moved = (feed.quoted(TICKER, ended) / entry - 1) * (1 if side == "long" else -1)
    truth: Truth = (clip(moved / FULL_SCALE), "final")
    feed.truth[name, 0] = truth
    feed.close_perp(agent, TICKER, ended + timedelta(seconds=1))
    closing = order("close_position", f"closed_{side}", TICKER, 0)
    said = [call(answer("close_position"), prompt(agent, "close"))]
    post: Row = {"actionType": "POST", "success": True, "parameters": {}, "result": {}}
    feed.tick(
        agent,
        [
            Step(ended, closing, truth, said),
            Step(ended + timedelta(seconds=3), post, UNKNOWN, [call('{"action":"POST"}', prompt(agent, "post"))]),
        ],
    )


def _bets(feed: Feed, hour: int) -> None:
    """Each NPC bets once on the hour's market, which is resolved a day later."""
    market = f"7{hour:04d}"
    feed.market(market)
    bets: list[tuple[str, str, str, float]] = []
    for place, npc in enumerate(NPCS):
        side, dollars = ("yes" if place % 3 else "no"), 20.0 + place
        time = feed.start + timedelta(minutes=20 + place)
        feed.buy(npc, market, side, dollars, time + timedelta(seconds=1))
        bought = order(f"buy_{side}", side.upper(), market, dollars)
        step = Step(time, bought, UNKNOWN, [call('{"action":"TRADE"}', prompt(npc, "bet"))])
        name = feed.tick(npc, [step], npcRole="insider", finalBalance=0.0, finalPnL=0.0)
        bets.append((name, npc, side, dollars))
    fate = {0: True, 1: False}.get(hour % 3)
    earned = feed.settle(market, fate, START + timedelta(hours=HOURS + 1))
    for name, npc, side, dollars in bets:
        feed.truth[name, 0] = (clip(earned[npc, side] / dollars), "final")
