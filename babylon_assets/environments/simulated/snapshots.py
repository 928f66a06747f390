"""Playing the game's benchmark snapshots with a policy of ours, which knows the simulated game's language alone.

How a state becomes prompts, without hindsight:

- The markets are shown two and two: with six prediction markets and four perpetuals a tick has three boards, and every
  prediction market is on one of them.
- The slots are A and B. A ticker is shown under one of the simulated game's names, with its price scaled to 100 at
  the beginning: a small policy knows no other names, and has seen no other prices.
- A snapshot has no filings and no reports. The newest post or trade about a market on the board is shown as a `rumor`,
  the language's least reliable source; where there is none, the last move of the first perpetual is.
- The account is the run's own: cash that is not locked, realised P&L (0 until the end), number of open trades.

Everything is held to the end and settled by `environments.babylon.benchmarks`. A run is repeated with several seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import numpy as np

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.babylon.benchmarks import (
    Performance,
    PredictionMarket,
    Snapshot,
    State,
    Tick,
    Trade,
    perform,
    profit,
    side_of,
)
from babylon_assets.environments.babylon.snapshot_reader import decode_snapshot
from babylon_assets.environments.simulated.accounts import NOTIONAL, STAKE
from babylon_assets.environments.simulated.language import (
    ANSWER_TOKENS,
    STARTING_CASH,
    Account,
    InvalidOrderError,
    parse_order,
    prompt,
)
from babylon_assets.environments.simulated.market import (
    PERP_BASE,
    SLOTS,
    TICKERS,
    Board,
    News,
    Order,
    PerpLine,
    PredictionLine,
    legal_orders,
)

#: Part of a perpetual position's notional that is locked while it is open, as in the simulated game.
_MARGIN = 1 / 5


@dataclass(frozen=True, slots=True)
class ShownBoard:
    """One board of a tick, and what its slots and tickers stand for."""

    board: Board
    markets: dict[str, PredictionMarket]
    prices: dict[str, tuple[str, float]]

    def trade(self, order: Order) -> Trade | None:
        """An order as a trade on the snapshot at its own prices; None for a hold."""
        if order.target is None:
            return None
        side = side_of(order.verb.rpartition("_")[2])
        if order.target in self.markets:
            market = self.markets[order.target]
            price = market.yes_price if side == "yes" else market.no_price
            return Trade(self.board.tick, market.id, side, STAKE, price)
        ticker, price = self.prices[order.target]
        return Trade(self.board.tick, ticker, side, NOTIONAL, price)


@dataclass(slots=True)
class Run:
    """One run over a snapshot: what was traded, and how many answers were no order."""

    seed: int
    trades: list[Trade] = field(default_factory=list)
    answers: int = 0
    invalid: int = 0

    @property
    def account(self) -> Account:
        locked = sum(trade.amount * (1 if trade.side in ("yes", "no") else _MARGIN) for trade in self.trades)
        return Account(STARTING_CASH - locked, 0.0, len(self.trades))


def play_snapshot(policy: Policy, snapshot: Snapshot, seeds: Sequence[int]) -> list[tuple[Run, Performance]]:
    """Play a snapshot once per seed; all runs of a tick are asked in one batch."""
    runs = [Run(seed) for seed in seeds]
    optimal = 0.0
    for place, tick in enumerate(snapshot.ticks):
        shown = list(boards(snapshot, place))
        optimal += sum(_best(board, snapshot) for board in shown)
        _ask(policy, runs, shown, tick)
    return [(run, perform(snapshot, run.trades, optimal)) for run in runs]


def version(snapshot: Snapshot, seeds: Sequence[int]) -> str:
    """What decides a run's numbers besides the policy, the snapshot's content included, as a name."""
    return f"1-{content_id([snapshot, list(seeds), STAKE, NOTIONAL])[:12]}"


def boards(snapshot: Snapshot, place: int) -> Iterator[ShownBoard]:
    """The boards of the tick at this place, as many as it takes to show every open prediction market."""
    tick = snapshot.ticks[place]
    open_markets = [market for market in tick.state.prediction_markets if not market.resolved]
    perps = tick.state.perpetual_markets
    first = {perp.ticker: perp.price for perp in snapshot.initial_state.perpetual_markets}
    for number in range(-(-len(open_markets) // 2) or -(-len(perps) // 2)):
        two = [open_markets[place] for place in _two(len(open_markets), number)]
        markets = dict(zip(SLOTS, two, strict=False))
        names = {TICKERS[place % len(TICKERS)]: perps[place] for place in _two(len(perps), number)}
        lines = tuple(PredictionLine(slot, market.id, market.yes_price) for slot, market in markets.items())
        scaled = tuple(
            PerpLine(name, PERP_BASE * perp.price / first.get(perp.ticker, perp.price)) for name, perp in names.items()
        )
        news = _news(snapshot, place, markets, {name: perp.ticker for name, perp in names.items()})
        at = datetime.fromtimestamp(tick.timestamp / 1000, UTC)
        board = Board(
            window=snapshot.id, room=number, tick=tick.number, at=at, predictions=lines, perps=scaled, news=news
        )
        yield ShownBoard(board, markets, {name: (perp.ticker, perp.price) for name, perp in names.items()})


def _two(count: int, number: int) -> list[int]:
    """Places of the pair of this number, going around where they run out; all where there are fewer than two."""
    return list(range(count)) if count < 2 else [(2 * number + offset) % count for offset in range(2)]


def _news(snapshot: Snapshot, place: int, markets: dict[str, PredictionMarket], names: dict[str, str]) -> News:
    """The newest post or trade about a market on the board, up to this tick; else the first perpetual's last move."""
    for tick in reversed(snapshot.ticks[: place + 1]):
        for slot, market in markets.items():
            up = _rumored_side(tick, market)
            if up is not None:
                return News("rumor", slot, up)
    if not names:
        return News("rumor", SLOTS[0], True)
    name, ticker = next(iter(names.items()))
    before = snapshot.ticks[place - 1].state if place else snapshot.initial_state
    return News("rumor", name, _price(snapshot.ticks[place].state, ticker) >= _price(before, ticker))


def _rumored_side(tick: Tick, market: PredictionMarket) -> bool | None:
    """Which way somebody spoke of, or bet on, a market in a tick, the last one first; None when nobody did."""
    for event in reversed(tick.events):
        if event.type == "market:trade" and event.data.get("marketId") == market.id:
            return str(event.data.get("outcome")).upper() == "YES"
        rumor = str(event.data.get("content", ""))
        if event.type == "post:created" and market.question in rumor:
            return "bullish" in rumor
    return None


def _price(state: State, ticker: str) -> float:
    return next((perp.price for perp in state.perpetual_markets if perp.ticker == ticker), 0.0)


def _ask(policy: Policy, runs: Sequence[Run], shown: Sequence[ShownBoard], tick: Tick) -> None:
    questions = [(run, board) for run in runs for board in shown]
    conversations = [prompt(board.board, run.account) for run, board in questions]
    seeds = [_answer_seed(run.seed, tick.number, board.board.room) for run, board in questions]
    answers = policy.complete(conversations, seeds, max_tokens=ANSWER_TOKENS)
    for (run, board), answer in zip(questions, answers, strict=True):
        run.answers += 1
        try:
            trade = board.trade(parse_order(answer.text, board.board))
        except InvalidOrderError:
            run.invalid += 1
            continue
        if trade is not None:
            run.trades.append(trade)


def _answer_seed(seed: int, tick: int, board: int) -> int:
    return int(np.random.SeedSequence([seed, tick, board]).generate_state(1)[0])


def _best(shown: ShownBoard, snapshot: Snapshot) -> float:
    """The most that an order on a board could earn, knowing everything; a hold earns nothing."""
    trades = [shown.trade(order) for order in legal_orders(shown.board)]
    return max(profit(trade, snapshot.ground_truth) if trade else 0.0 for trade in trades)


class Snapshots:
    """The game's benchmark snapshots, as `environments.base.SnapshotBenchmark` has it."""

    def decode(self, content: bytes) -> Snapshot:
        return decode_snapshot(content)

    def version(self, snapshot: Snapshot, seeds: Sequence[int]) -> str:
        return version(snapshot, seeds)

    def play(self, policy: Policy, snapshot: Snapshot, seeds: Sequence[int]) -> tuple[list[float], dict[str, Any]]:
        played = play_snapshot(policy, snapshot, seeds)
        results = {
            **{
                figure: _mean_known([getattr(performance, figure) for _, performance in played])
                for figure in ("optimal", "of_optimal", "accuracy", "win_rate", "drawdown")
            },
            "trades": fmean(len(run.trades) for run, _ in played),
            "valid_share": 1 - sum(run.invalid for run, _ in played) / sum(run.answers for run, _ in played),
            "runs": len(played),
            "equity": [list(performance.equity) for _, performance in played],
            **({"left_out": snapshot.left_out} if snapshot.left_out else {}),
        }
        return [performance.pnl for _, performance in played], results


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
