"""The market of the simulated game: boards that a player sees, and the truth behind them.

A board is what every player of a room sees at one tick: two prediction markets, two perpetuals and one piece of
news from a source of known reliability. What really happens (`Truth`) is drawn with the board and kept in a type
of its own, which no prompt is made from. Everything follows from the seed; nothing here writes or calls anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from babylon_assets.domain.windows import HOURLY, WindowGrid, parse_id

Verb = Literal["hold", "buy_yes", "buy_no", "open_long", "open_short"]
Kind = Literal["prediction", "perp"]

SLOTS = ("A", "B")
TICKERS = ("ACME", "BOLT", "CORA", "DYNE", "ECHO", "FLUX", "GRID", "HALO")
#: The prediction markets of a wide board: it has five, and five perpetuals, as the real game shows them.
WIDE_SLOTS = ("A", "B", "C", "D", "E")
#: The perpetuals of all rooms: no two rooms of a window have one in common, for it has one price at a time.
ALL_TICKERS = (
    *TICKERS,
    "IRIS",
    "JADE",
    "KILO",
    "LUMA",
    "MIRA",
    "NOVA",
    "ORBI",
    "PIKE",
    "QUAY",
    "RUNE",
    "SOLA",
    "TERN",
)
#: source of a piece of news -> (how often it is right, how often it is the source)
SOURCES: dict[str, tuple[float, float]] = {
    "filing": (0.95, 0.45),
    "report": (0.85, 0.40),
    "rumor": (0.55, 0.15),
}
#: A perpetual moves by this much (mean and spread, in percent of the price) between two ticks of a room.
MOVE_MEAN, MOVE_SPREAD = 8.0, 2.0
#: One prediction market in this many resolves in a later window.
LATE_ONE_IN = 16
#: Reference price around which a perpetual wanders, in dollars.
PERP_BASE = 100.0


@dataclass(frozen=True, slots=True)
class PredictionLine:
    """A prediction market on a board: `yes_price` in (0, 1) is what a YES share costs; NO costs the rest."""

    slot: str
    market_id: str
    yes_price: float


@dataclass(frozen=True, slots=True)
class PerpLine:
    """A perpetual on a board, at its price in dollars."""

    ticker: str
    price: float


@dataclass(frozen=True, slots=True)
class News:
    """One headline: a source, what it is about (a slot or a ticker) and which way (up is YES, or a rising price)."""

    source: str
    target: str
    up: bool


@dataclass(frozen=True, slots=True)
class Board:
    """What every player of a room sees at one tick."""

    window: str
    room: int
    tick: int
    at: datetime
    predictions: tuple[PredictionLine, ...]
    perps: tuple[PerpLine, ...]
    news: News


@dataclass(frozen=True, slots=True)
class Truth:
    """What becomes of a board's lines: results and resolution times by market id, exit prices by ticker."""

    resolutions: dict[str, bool]
    resolves_at: dict[str, datetime]
    exit_prices: dict[str, float]
    exits_at: datetime


@dataclass(frozen=True, slots=True)
class Order:
    """What a player wants: a verb, and the slot or ticker that it is about (None for hold)."""

    verb: Verb
    target: str | None = None


def legal_orders(board: Board) -> list[Order]:
    """Every order that can be carried out on a board, hold first: 1 + 2 per market."""
    orders = [Order("hold")]
    for line in board.predictions:
        orders += [Order("buy_yes", line.slot), Order("buy_no", line.slot)]
    for perp in board.perps:
        orders += [Order("open_long", perp.ticker), Order("open_short", perp.ticker)]
    return orders


def news_order(board: Board) -> Order:
    """The order that acts on the board's news."""
    news = board.news
    if news.target in WIDE_SLOTS:
        return Order("buy_yes" if news.up else "buy_no", news.target)
    return Order("open_long" if news.up else "open_short", news.target)


@dataclass(frozen=True, slots=True)
class Clock:
    """When a room's ticks happen in its window: the rooms take turns, so that no two boards share a moment."""

    rooms: int
    ticks: int
    windows: WindowGrid = HOURLY
    is_wide: bool = False

    def at(self, window: str, room: int, tick: int) -> datetime:
        """The time of a tick."""
        return self.windows.parse(window).start + (tick * self.rooms + room + 0.5) * self._slot

    def room_at(self, moment: datetime) -> int:
        """The room whose tick happens at a time."""
        return int((moment - self.windows.of(moment).start) / self._slot) % self.rooms

    @property
    def settled_after(self) -> timedelta:
        """How long after its tick a board is settled: before the room's next tick; at the latest, the window's end."""
        return 0.9 * self.rooms * self._slot

    @property
    def _slot(self) -> timedelta:
        return self.windows.length / (self.rooms * self.ticks)


def draw_room(seed: int, window: str, room: int, clock: Clock) -> list[tuple[Board, Truth]]:
    """Draw the boards of a room for one window, in order; prices go on from board to board.

    Args:
        seed: seed of the game; with window, room and tick it decides everything that is drawn.
    """
    prices = _opening_prices(seed, window, room, clock.is_wide)
    drawn: list[tuple[Board, Truth]] = []
    for tick in range(clock.ticks):
        drawn.append(_draw_board(seed, window, room, tick, clock, prices))
        prices = drawn[-1][1].exit_prices
    return drawn


def _opening_prices(seed: int, window: str, room: int, is_wide: bool) -> dict[str, float]:
    rng = board_rng(seed, window, room, tick=2**16)
    tickers = room_tickers(room, is_wide)
    return {ticker: round(PERP_BASE * float(np.exp(rng.normal(0, 0.1))), 2) for ticker in tickers}


def _draw_board(
    seed: int, window: str, room: int, tick: int, clock: Clock, open_prices: dict[str, float]
) -> tuple[Board, Truth]:
    rng = board_rng(seed, window, room, tick)
    at = clock.at(window, room, tick)
    predictions = tuple(
        PredictionLine(
            slot, market_id(int(at.timestamp() * 1000), room, index), round(float(rng.uniform(0.30, 0.70)), 2)
        )
        for index, slot in enumerate(WIDE_SLOTS if clock.is_wide else SLOTS)
    )
    perps = tuple(PerpLine(ticker, open_prices[ticker]) for ticker in room_tickers(room, clock.is_wide))
    truth = _draw_truth(rng, predictions, perps, at, clock)
    return Board(
        window=window,
        room=room,
        tick=tick,
        at=at,
        predictions=predictions,
        perps=perps,
        news=_draw_news(rng, predictions, perps, truth),
    ), truth


def board_rng(seed: int, window: str, room: int, tick: int) -> np.random.Generator:
    """The generator of one board: independent streams for different seeds, windows, rooms and ticks."""
    return np.random.default_rng([seed, *window_numbers(window), room, tick])


def window_numbers(window: str) -> tuple[int, ...]:
    """What a window adds to a seed: the hour of its start, and the second within that where it is not the first."""
    hour, second = divmod(int(parse_id(window).timestamp()), 3600)
    return (hour, second) if second else (hour,)


def room_tickers(room: int, is_wide: bool = False) -> tuple[str, ...]:
    """The perpetuals that a room trades: two, or five on wide boards."""
    count = len(WIDE_SLOTS if is_wide else SLOTS)
    return ALL_TICKERS[count * room : count * (room + 1)]


def most_rooms(is_wide: bool) -> int:
    """How many rooms there are perpetuals for: ten, or four of wide boards."""
    return len(ALL_TICKERS) // len(WIDE_SLOTS if is_wide else SLOTS)


def market_id(at_ms: int, room: int, index: int) -> str:
    """An 18-digit id like the game's: milliseconds, then room and slot."""
    return f"{at_ms:013d}{room:03d}{index:02d}"


def slot_index(market: str) -> int | None:
    """The place on its board of the market with such an id; None where it is an id of another form."""
    return int(market[-2:]) if len(market) == 18 and market.isascii() and market.isdecimal() else None


def _draw_truth(
    rng: np.random.Generator,
    predictions: tuple[PredictionLine, ...],
    perps: tuple[PerpLine, ...],
    at: datetime,
    clock: Clock,
) -> Truth:
    settled = min(at + clock.settled_after, clock.windows.of(at).end - timedelta(seconds=1))
    late = rng.integers(LATE_ONE_IN, size=len(predictions)) == 0
    return Truth(
        resolutions={line.market_id: bool(rng.random() < line.yes_price) for line in predictions},
        resolves_at={
            line.market_id: settled + clock.windows.length if is_late else settled
            for line, is_late in zip(predictions, late, strict=True)
        },
        exit_prices={perp.ticker: _exit_price(rng, perp.price) for perp in perps},
        exits_at=settled,
    )


def _exit_price(rng: np.random.Generator, price: float) -> float:
    """A jump up or down with equal chance: the price then is no hint of where it goes next."""
    percent = float(rng.choice((-1.0, 1.0))) * max(0.5, float(rng.normal(MOVE_MEAN, MOVE_SPREAD)))
    return round(price * (1 + percent / 100), 2)


def _draw_news(
    rng: np.random.Generator,
    predictions: tuple[PredictionLine, ...],
    perps: tuple[PerpLine, ...],
    truth: Truth,
) -> News:
    names, reliability, share = zip(*((name, *numbers) for name, numbers in SOURCES.items()), strict=True)
    source = int(rng.choice(len(names), p=share))
    about = int(rng.integers(len(predictions) + len(perps)))
    if about < len(predictions):
        target, really = predictions[about].slot, truth.resolutions[predictions[about].market_id]
    else:
        perp = perps[about - len(predictions)]
        target, really = perp.ticker, truth.exit_prices[perp.ticker] > perp.price
    right = bool(rng.random() < reliability[source])
    return News(names[source], target, really if right else not really)
