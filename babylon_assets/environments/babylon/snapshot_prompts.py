"""Benchmark snapshots in the game's own prompt form, and what answers to them were worth.

The form is that of the game's decision prompt: who one is, the balance, markets, companies, posts, and how to answer.
Feed shows markets with ids and chances, Babylon without ids and with the prices of shares. A question shows two of the
prediction markets, and two of the perpetuals; nothing of what became of them is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.environments.babylon.benchmarks import (
    PerpetualMarket,
    PredictionMarket,
    Side,
    Snapshot,
    State,
    Trade,
    profit,
)
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.environments.babylon.rules import GameRules
from babylon_assets.environments.babylon.snapshot_reader import decode_snapshot
from babylon_assets.environments.babylon.words import read_action
from babylon_assets.environments.snapshot_questions import SnapshotQuestion

#: Every so many ticks are asked about.
EVERY_TICKS = 5
#: Markets of either kind in one question, and posts.
SHOWN, POSTS = 2, 3
BALANCE, STAKE = 1000.0, 40.0
_SYSTEM = "You are a trader in a prediction market game. You have ${balance:.0f}. Answer with JSON only."
_FEED_FORM = (
    'Answer: {"thought": "...", "action": "TRADE" | "WAIT", "parameters": {"marketType": "prediction" | "perp", '
    '"marketId": "...", "side": "buy_yes" | "buy_no" | "open_long" | "open_short", "amount": 40}}'
)
_BABYLON_FORM = (
    'Answer: {"action": "trade" | "hold", "trade": {"type": "prediction" | "perp", "market": "...", '
    '"action": "buy_yes" | "buy_no" | "open_long" | "open_short", "amount": 40, "reasoning": "..."}}'
)


class SnapshotPrompts:
    """As `environments.snapshot_questions.SnapshotReader` has it.

    Args:
        full_scale_percent: by how much a perpetual moves to be worth 1.
    """

    def __init__(self, rules: GameRules, full_scale_percent: float) -> None:
        self._rules, self._scale = rules, full_scale_percent / 100
        forms = _SYSTEM, _FEED_FORM if rules.winners_share else _BABYLON_FORM
        self.version = f"1-{content_id([*forms, EVERY_TICKS, SHOWN, full_scale_percent])[:8]}"

    def decode(self, content: bytes) -> Snapshot:
        return decode_snapshot(content)

    def questions(self, snapshot: Snapshot) -> Sequence[SnapshotQuestion]:
        """One for each pair of markets at every fifth tick."""
        asked = []
        for place in range(0, len(snapshot.ticks), EVERY_TICKS):
            tick = snapshot.ticks[place]
            for number, (markets, perps) in enumerate(_pairs(tick.state)):
                text = self._prompt(snapshot, place, markets, perps)
                step = _situation(tick.timestamp)
                name, cluster = f"{snapshot.id}/{tick.number}/{number}", f"{snapshot.id}/{number}"
                messages = [Message("system", _SYSTEM.format(balance=BALANCE)), Message("user", text)]
                asked.append(SnapshotQuestion(name, cluster, messages, step, place))
        return asked

    def _prompt(
        self,
        snapshot: Snapshot,
        place: int,
        markets: Sequence[PredictionMarket],
        perps: Sequence[PerpetualMarket],
    ) -> str:
        tick, first = (
            snapshot.ticks[place],
            {perp.ticker: perp.price for perp in snapshot.initial_state.perpetual_markets},
        )
        has_ids = self._rules.winners_share
        lines = [
            "You are a trader.",
            f"Balance: ${BALANCE:.2f}. Lifetime P&L: $0.00. You hold nothing.",
            "",
            "Markets:",
        ]
        for market in markets:
            name = f"{market.id} {market.question}" if has_ids else market.question
            yes, no = market.yes_price, market.no_price
            lines.append(f"- {name} YES {yes:.0%} NO {no:.0%}" if has_ids else f"- {name} Yes {yes:.2f} No {no:.2f}")
        lines += ["", "Companies:"]
        for perp in perps:
            moved = f" ({perp.price / first[perp.ticker] - 1:+.1%})" if perp.ticker in first else ""
            lines.append(f"- {perp.ticker} @ ${perp.price:.2f}{moved}")
        posts = [str(event.data.get("content", "")) for event in tick.events if event.type == "post:created"]
        lines += ["", "Posts:", *(f"- {post}" for post in posts[-POSTS:])] if posts else []
        return "\n".join([*lines, "", _FEED_FORM if has_ids else _BABYLON_FORM])

    def value(self, snapshot: Snapshot, question: SnapshotQuestion, step: StepFacts) -> tuple[float | None, bool]:
        """By what became of the markets; price impact, and what others bet, are ignored."""
        kind = read_action(step.action_type).kind
        if step.invalid:
            return None, False
        if kind != "trade":
            return (0.0, True) if kind == "hold" else (None, True)
        trade = _trade(snapshot.ticks[question.tick].state, step.detail, question.tick)
        if trade is None or trade.amount > BALANCE:
            return None, False
        worth = profit(trade, snapshot.ground_truth) / trade.amount
        worth = worth if trade.side in ("yes", "no") else worth / self._scale
        return max(-1.0, min(1.0, worth)), True


def _pairs(state: State) -> list[tuple[Sequence[PredictionMarket], Sequence[PerpetualMarket]]]:
    """The markets of a state, two and two; where the perpetuals run out they are shown again."""
    markets = [market for market in state.prediction_markets if not market.resolved]
    perps = state.perpetual_markets
    count = -(-max(len(markets), len(perps)) // SHOWN)
    return [(_around(markets, number), _around(perps, number)) for number in range(count)]


def _around(values: Sequence[Any], number: int) -> list[Any]:
    if len(values) <= SHOWN:
        return list(values)
    return [values[(SHOWN * number + offset) % len(values)] for offset in range(SHOWN)]


def _trade(state: State, asked: dict[str, Any], tick: int) -> Trade | None:
    """The order of an answer at the prices of a state; None where it names nothing that is traded there."""
    side, amount = asked.get("side"), asked.get("amount") or STAKE
    if side in ("yes", "no"):
        named = {
            text.casefold(): market for market in state.prediction_markets for text in (market.id, market.question)
        }
        market = named.get(str(asked.get("market_id")).casefold())
        if market is not None and amount > 0:
            return Trade(
                tick, market.id, _side(side), float(amount), market.yes_price if side == "yes" else market.no_price
            )
    elif side in ("long", "short"):
        perps = {perp.ticker.casefold(): perp for perp in state.perpetual_markets}
        perp = perps.get(str(asked.get("ticker")).casefold())
        if perp is not None and amount > 0:
            return Trade(tick, perp.ticker, _side(side), float(amount), perp.price)
    return None


def _situation(at: int) -> StepFacts:
    """A step of somebody who has done nothing yet, at a time in epoch milliseconds."""
    return make_step(
        step=0,
        timestamp_ms=at,
        moment_ms=at,
        balance=BALANCE,
        pnl=None,
        action_type="",
        market_type=None,
        market_id=None,
        ticker=None,
        side=None,
        amount=None,
        success=None,
        error=None,
        invalid=False,
    )


def _side(text: str) -> Side:
    sides: dict[str, Side] = {"yes": "yes", "no": "no", "long": "long", "short": "short"}
    return sides[text]
