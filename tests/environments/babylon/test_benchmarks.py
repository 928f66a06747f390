"""What trades on a snapshot come to, against numbers computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.domain.errors import PermanentError
from babylon_assets.environments.babylon.benchmarks import (
    Snapshot,
    Trade,
    drawdown,
    perform,
    profit,
    side_of,
)
from babylon_assets.environments.babylon.snapshot_reader import LARGEST, decode_snapshot, read_snapshot
from babylon_assets.environments.simulated.market import legal_orders
from babylon_assets.environments.simulated.snapshots import boards, version

SMALL = Path(__file__).parents[1] / "snapshot.json"


@pytest.fixture
def snapshot() -> Snapshot:
    return decode_snapshot(SMALL.read_bytes())


@pytest.mark.parametrize(
    ("side", "target", "price", "earned"),
    [
        ("yes", "m-0", 0.25, 300.0),  # 400 shares that pay 1 each cost 100
        ("yes", "m-0", 0.4, 150.0),  # dearer, and so less is earned on the same right side
        ("no", "m-0", 0.75, -100.0),
        ("no", "m-1", 0.5, 100.0),
        ("no", "m-2", 0.2, 400.0),
        ("long", "BTC", 50000, -12.0),  # 44,000 at the end: -12%
        ("short", "BTC", 50000, 12.0),
        ("long", "BTC", 40000, 10.0),  # the same market, entered lower
        ("short", "ETH", 2000, -10.0),
    ],
)
def test_a_trade_comes_to(snapshot: Snapshot, side: Any, target: str, price: float, earned: float) -> None:
    assert profit(Trade(0, target, side, 100.0, price), snapshot.ground_truth) == pytest.approx(earned)


@pytest.mark.parametrize("written", ["long", "LONG", "Long", " long "])
def test_a_direction_is_read_in_any_case(written: str, snapshot: Snapshot) -> None:
    assert profit(Trade(0, "ETH", side_of(written), 100.0, 2000), snapshot.ground_truth) == pytest.approx(10.0)
    assert side_of("NO") == "no"
    with pytest.raises(ValueError, match="no side"):
        side_of("sideways")


def test_a_run_is_settled_by_hand(snapshot: Snapshot) -> None:
    trades = [
        Trade(0, "m-0", "yes", 100.0, 0.25),
        Trade(1, "m-2", "yes", 100.0, 0.8),
        Trade(1, "BTC", "short", 500.0, 55000),
    ]
    found = perform(snapshot, trades, optimal=1000.0)
    # m-0: 400 shares, -> +300; m-2: wrong, -100; short from 55,000 to 44,000: +20% of 500
    assert found.pnl == pytest.approx(300 - 100 + 100)
    # tick 0: 400 x 0.25 - 100; tick 1: 400 x 0.4 - 100, the others just entered; tick 2: 400 x 0.2 - 100, short +100
    assert found.equity == pytest.approx((0.0, 60.0, 80.0, 300.0))
    assert (found.accuracy, found.win_rate) == (0.5, pytest.approx(2 / 3))
    assert (found.drawdown, found.of_optimal) == (0.0, pytest.approx(0.3))


def test_the_drawdown_is_the_largest_fall_over_time(snapshot: Snapshot) -> None:
    assert drawdown([10, -5, 20, 12, 15, -1, 30]) == 21
    assert drawdown([-7, -3]) == 7  # from what one began with
    # tick 0: nothing yet; tick 1: long from 55,000; tick 2: 44,000, -20% of 500
    found = perform(snapshot, [Trade(1, "BTC", "long", 500.0, 55000)], optimal=0.0)
    assert (found.equity, found.drawdown) == ((0.0, 0.0, pytest.approx(-100), pytest.approx(-100)), pytest.approx(100))
    assert (found.accuracy, found.win_rate, found.of_optimal) == (None, 0.0, None)


def test_always_the_wrong_side_is_no_success(snapshot: Snapshot) -> None:
    wrong = [Trade(0, "m-0", "no", 50, 0.75), Trade(0, "m-1", "yes", 50, 0.5), Trade(0, "m-2", "yes", 50, 0.8)]
    found = perform(snapshot, wrong, optimal=400.0)
    assert (found.pnl, found.accuracy, found.win_rate, found.of_optimal) == (-150, 0.0, 0.0, -0.375)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body.update(ticks=[]), "it has no ticks"),
        (
            lambda body: body["groundTruth"].update(marketOutcomes={}, priceHistory={}),
            "no market whose outcome it knows",
        ),
        (lambda body: body.update(id="a\0b"), "this is no benchmark snapshot"),
        (lambda body: body.update(id="x" * 1_000_000), "this is no benchmark"),
        (lambda body: body.pop("groundTruth"), "this is no benchmark"),
        (lambda body: body.update(ticks="NESTED"), "this is no benchmark"),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_place(change: Any, said: str) -> None:
    body = json.loads(SMALL.read_text())
    change(body)
    with pytest.raises(PermanentError, match=said):
        decode_snapshot(json.dumps(body).replace('"NESTED"', '{"a":' * 5_000 + "1" + "}" * 5_000).encode())


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        (lambda body: body["groundTruth"]["marketOutcomes"].pop("m-1"), {"markets without an outcome": 4}),
        (lambda body: body["groundTruth"]["marketOutcomes"].update(m_9="perhaps"), {"outcomes": 1}),
        (lambda body: body["groundTruth"]["priceHistory"].update(ETH=[]), {"markets without an outcome": 4}),
        (
            lambda body: body["groundTruth"]["priceHistory"]["ETH"][0].update(price=-1),
            {"markets without an outcome": 4, "outcomes": 1},
        ),
        (lambda body: body["ticks"][0]["state"].pop("perpetualMarkets"), {"ticks": 1}),
        (lambda body: body["initialState"]["predictionMarkets"][0].update(yesPrice="x"), {"markets": 1}),
        (lambda body: body["initialState"]["predictionMarkets"][0].update(yesPrice=0), {"markets": 1}),
        (lambda body: body["initialState"]["perpetualMarkets"][0].update(price=-1), {"perpetuals": 1}),
        (lambda body: body["ticks"][0].update(timestamp=10**17), {"ticks": 1}),
        (lambda body: body["ticks"][0].update(number=10**400), {"ticks": 1}),
        (lambda body: body["ticks"][0].update(timestamp="NESTED", more="NESTED"), {"ticks": 1}),
        (lambda body: body["ticks"][0].update(more="NESTED"), {}),
        (lambda body: body.update(more=["NESTED"]), {}),
        (lambda body: body["ticks"][0]["events"].extend([{"type": 7}, {"type": "x", "data": {}}]), {"events": 1}),
    ],
)
def test_one_bad_row_of_a_snapshot_costs_one_row(change: Any, left_out: dict[str, int]) -> None:
    body = json.loads(SMALL.read_text())
    change(body)
    snapshot = decode_snapshot(json.dumps(body).replace('"NESTED"', "[" * 5_000 + "]" * 5_000).encode())
    assert snapshot.left_out == left_out
    assert len(snapshot.ticks) == len(body["ticks"]) - left_out.get("ticks", 0)
    shown = list(boards(snapshot, len(snapshot.ticks) - 1))
    assert shown and all(board.trade(order) or True for board in shown for order in legal_orders(board.board))


def test_no_more_of_a_file_is_read_than_a_snapshot_may_have(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole of a terabyte
    with pytest.raises(PermanentError, match="more than 64 MiB"):
        read_snapshot(path)
    with pytest.raises(PermanentError, match="more than 64 MiB"):
        decode_snapshot(b" " * (LARGEST + 1))
    path.write_bytes(SMALL.read_bytes())
    assert read_snapshot(path) == SMALL.read_bytes()


def test_a_whole_snapshot_keeps_its_version() -> None:
    assert version(decode_snapshot(SMALL.read_bytes()), range(3)) == "1-4729a94c8c49"
