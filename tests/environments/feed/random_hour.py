"""An hour of Feed in which agents act at random, with the true worth of every step."""

from __future__ import annotations

import random
from datetime import timedelta

from tests.environments.feed.game import FULL_SCALE, Feed, Step, Truth, call, clip, order
from tests.environments.feed.hour import INVALID, START, UNKNOWN, at

AGENTS = [f"{n}" for n in range(50001, 50011)]
NPCS = [f"npc-{name}" for name in ("a-b", "c-d", "e-f")]


def draw_hour(seed: int, minutes: int = 50, *, pnl_after_fee: bool = False) -> Feed:
    """Ten agents and three NPCs act once in each of so many minutes, or not at all."""
    rng = random.Random(seed)
    feed = Feed(START, impact_lasts=True, pnl_after_fee=pnl_after_fee)
    for agent in AGENTS:
        feed.user(agent)
    markets = [f"6{n:04d}" for n in range(8)]
    for market in markets:
        feed.market(market, rng.uniform(2000, 8000), rng.uniform(2000, 8000))
    for place, ticker in enumerate(("ACME", "BOLT", "ZED")):
        price, prices = rng.uniform(20, 200), []
        for minute in range(-3, 130):
            prices.append((minute + rng.uniform(0.9, 0.99), price))
            price *= 1 + rng.gauss(0, 0.004)
        feed.company(ticker, f"org-{place}", prices)
    bets: list[tuple[str, str, str, str, float]] = []
    longs: dict[tuple[str, str], tuple[str, str, float, float]] = {}
    for minute in range(minutes):
        for place, agent in enumerate(rng.sample([*AGENTS, *NPCS], 6)):
            time = at(minute) + timedelta(seconds=7 * place + rng.uniform(0, 3))
            _act(feed, rng, agent, time, rng.choice(markets), bets, longs)
    for (agent, ticker), (name, side, price, opened) in longs.items():
        later = feed.later(ticker, at(opened))
        assert later is not None
        feed.truth[name, 0] = (_perp(side, price, later), "final")
        assert agent
    for market in markets:
        fate = rng.choice(["yes", "no", "cancelled", "open"])
        earned = (
            {}
            if fate == "open"
            else feed.settle(market, {"yes": True, "no": False}.get(fate), at(rng.uniform(60, 900)))
        )
        if fate == "open":
            feed.leave_open(market)
        for name, agent, bet_market, side, dollars in bets:
            if bet_market == market and (agent, market, side) in feed.bets:
                pnl = earned.get((agent, side))
                feed.truth[name, 0] = (None, "pending") if pnl is None else (clip(pnl / dollars), "final")
    return feed


def _perp(side: str, entry: float, exit_price: float) -> float:
    return clip((exit_price / entry - 1) * (1 if side == "long" else -1) / FULL_SCALE)


def _act(feed: Feed, rng: random.Random, agent, time, market, bets, longs) -> None:  # type: ignore[no-untyped-def]
    """One tick of one step: a bet, a sale of an earlier one, a perpetual, its close, a post, or a refusal."""
    calls = [call("{}"), *([call("{}", "P + feedback")] if rng.random() < 0.3 else [])]
    moment, side = time + timedelta(seconds=rng.uniform(0.2, 3)), rng.choice(["yes", "no"])
    kind = rng.choice(["bet", "bet", "perp", "perp", "post", "refused"])
    held = (agent, market, side) in feed.bets
    if kind == "bet" and held:
        returned = feed.sell(agent, market, side, moment)
        name = next(row[0] for row in bets if row[1:4] == (agent, market, side))
        bets[:] = [row for row in bets if row[1:4] != (agent, market, side)]
        feed.truth[name, 0] = (clip(returned), "final")
        truth: Truth = (clip(returned), "final")
        feed.tick(agent, [Step(time, order(f"sell_{side}", f"sold_{side.upper()}", market, 0), truth, calls)])
    elif kind == "bet":
        dollars = round(rng.uniform(1, 120), 2)
        feed.buy(agent, market, side, dollars, moment)
        asked = rng.choice([dollars, str(dollars), None, 5000])
        name = feed.tick(agent, [Step(time, order(f"buy_{side}", side.upper(), market, asked), UNKNOWN, calls)])
        bets.append((name, agent, market, side, dollars))
    elif kind == "perp":
        _perpetual(feed, rng, agent, time, moment, longs, calls)
    elif kind == "post":
        post = {"actionType": rng.choice(["POST", "COMMENT", "LIKE"]), "success": True, "parameters": {}, "result": {}}
        feed.tick(agent, [Step(time, post, UNKNOWN, calls)])
    else:
        refused = order("buy_yes", "YES", market, success=False, error="no", result={})
        feed.tick(agent, [Step(time, refused, INVALID, calls)])


def _perpetual(feed: Feed, rng: random.Random, agent, time, moment, longs, calls) -> None:  # type: ignore[no-untyped-def]
    ticker, side = rng.choice(["ACME", "BOLT", "ZED"]), rng.choice(["long", "short"])
    held = feed.perps.get((agent, ticker))
    if held is None:
        feed.open_perp(agent, ticker, side, float(rng.randrange(10, 200)), moment)
        done = (moment + timedelta(milliseconds=40) - START) / timedelta(minutes=1)
        name = feed.tick(agent, [Step(time, order(f"open_{side}", side, ticker), UNKNOWN, calls)])
        longs[agent, ticker] = (name, side, feed.perps[agent, ticker].entry, done)
        return
    name, side, price, _ = longs.pop((agent, ticker))
    truth: Truth = (_perp(side, price, feed.quoted(ticker, time)), "final")
    feed.truth[name, 0] = truth
    if rng.random() < 0.5:
        feed.close_perp(agent, ticker, moment)
        closing = order("close_position", f"closed_{side}", ticker, 0)
    else:
        other = "short" if side == "long" else "long"
        feed.open_perp(agent, ticker, other, held.size, moment)
        closing = order(f"open_{other}", other, ticker, held.size)
    feed.tick(agent, [Step(time, closing, truth, calls)])
