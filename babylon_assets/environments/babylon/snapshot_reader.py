"""Reading a benchmark snapshot from a file: one bad row costs that row and is counted, and what is read is bounded.

Rows are ticks, events, prediction markets and perpetuals. A perpetual whose prices cannot all be read is left out as a
whole, as is a market of which the ground truth does not know what became of it: what they came to is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.json_nesting import decode_cut
from babylon_assets.environments.babylon.benchmarks import (
    Event,
    GroundTruth,
    Milliseconds,
    Name,
    Number,
    PerpetualMarket,
    PredictionMarket,
    Price,
    Snapshot,
    State,
    Tick,
)

#: Bytes of a snapshot.
LARGEST = 64 * 2**20
#: Rows of one list.
MOST_ROWS = 10_000
_T = TypeVar("_T")


class _State(msgspec.Struct, rename="camel"):
    prediction_markets: list[msgspec.Raw]
    perpetual_markets: list[msgspec.Raw]


class _Tick(msgspec.Struct):
    number: Number
    timestamp: Milliseconds
    events: list[msgspec.Raw]
    state: _State


class _GroundTruth(msgspec.Struct, rename="camel"):
    market_outcomes: dict[str, msgspec.Raw]
    price_history: dict[str, msgspec.Raw]


class _Snapshot(msgspec.Struct, rename="camel"):
    id: Name
    initial_state: _State
    ticks: list[msgspec.Raw]
    ground_truth: _GroundTruth


_decode_whole = msgspec.json.Decoder(_Snapshot).decode


def read_snapshot(path: Path) -> bytes:
    """The content of a snapshot's file, of which no more is read than may be in it.

    Raises:
        PermanentError: it is larger, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise PermanentError(f"{path} cannot be read: {error.strerror}; name another file") from None
    _refuse_large(content)
    return content


def _refuse_large(content: bytes) -> None:
    if len(content) > LARGEST:
        raise PermanentError(f"the snapshot has more than {LARGEST >> 20} MiB; give another file")


def decode_snapshot(content: bytes) -> Snapshot:
    """Read a snapshot; `left_out` counts the rows of it that cannot be.

    Raises:
        PermanentError: it is none, or nothing of it can be played.
    """
    _refuse_large(content)
    try:
        raw = decode_cut(_decode_whole, content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PermanentError(f"this is no benchmark snapshot of the game: {error}; give another file") from None
    lost: Counter[str] = Counter()
    truth = _truth(raw.ground_truth, lost)
    initial = _state(raw.initial_state, truth, lost)
    ticks = [_tick(tick, truth, lost) for tick in _kept(raw.ticks, _Tick, "ticks", lost)]
    snapshot = Snapshot(raw.id, initial, ticks, truth, dict(sorted(lost.items())))
    if not any(state.prediction_markets or state.perpetual_markets for state in (tick.state for tick in ticks)):
        lacks = "its ticks have no market whose outcome it knows" if ticks else "it has no ticks"
        counted = "".join(f"; {number} {name} left out" for name, number in snapshot.left_out.items())
        raise PermanentError(f"the snapshot cannot be played: {lacks}{counted}; give another file")
    return snapshot


def _truth(raw: _GroundTruth, lost: Counter[str]) -> GroundTruth:
    outcomes = {name: _decode_row(value, bool) for name, value in raw.market_outcomes.items()}
    prices = {name: _decode_row(value, list[Price]) for name, value in raw.price_history.items()}
    truth = GroundTruth(
        {name: outcome for name, outcome in outcomes.items() if outcome is not None},
        {name: history for name, history in prices.items() if history is not None},
    )
    lost["outcomes"] += len(outcomes) - len(truth.market_outcomes) + len(prices) - len(truth.price_history)
    lost += Counter()  # without what is 0
    return truth


def _tick(raw: _Tick, truth: GroundTruth, lost: Counter[str]) -> Tick:
    events = _kept(raw.events, Event, "events", lost)
    return Tick(raw.number, raw.timestamp, events, _state(raw.state, truth, lost))


def _state(raw: _State, truth: GroundTruth, lost: Counter[str]) -> State:
    """What can be traded of a state: markets that can be read, and whose end is known."""
    markets = _kept(raw.prediction_markets, PredictionMarket, "markets", lost)
    perps = _kept(raw.perpetual_markets, PerpetualMarket, "perpetuals", lost)
    known = [market for market in markets if market.id in truth.market_outcomes]
    priced = [perp for perp in perps if truth.price_history.get(perp.ticker)]
    if unknown := len(markets) - len(known) + len(perps) - len(priced):
        lost["markets without an outcome"] += unknown
    return State(known, priced)


def _kept(rows: Iterable[msgspec.Raw], kind: type[_T], name: str, lost: Counter[str]) -> list[_T]:
    kept: list[_T] = []
    for number, raw in enumerate(rows):
        row = _decode_row(raw, kind) if number < MOST_ROWS else None
        if row is None:
            lost[name] += 1
        else:
            kept.append(row)
    return kept


def _decode_row(raw: msgspec.Raw, kind: type[_T]) -> _T | None:
    try:
        return decode_cut(msgspec.json.Decoder(kind).decode, raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
