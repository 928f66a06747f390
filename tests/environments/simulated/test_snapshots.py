"""Playing the game's snapshots: what is shown, what an order becomes, and that no prompt knows the end."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from babylon_assets.environments.babylon.benchmarks import Snapshot, Trade
from babylon_assets.environments.babylon.snapshot_reader import decode_snapshot
from babylon_assets.environments.simulated.market import Order
from babylon_assets.environments.simulated.snapshots import boards, play_snapshot, version
from tests.evaluation.players import Scripted, babble, follow, hold

SMALL = Path(__file__).parents[1] / "snapshot.json"


@pytest.fixture
def snapshot() -> Snapshot:
    return decode_snapshot(SMALL.read_bytes())


def test_every_market_is_shown_in_the_language_that_policies_know(snapshot: Snapshot) -> None:
    policy = Scripted(hold)
    play_snapshot(policy, snapshot, [0])
    assert policy.asked == [
        # tick 0: nobody spoke; BTC fell from 50,000
        "A yes 25\nB yes 50\nACME 98\nBOLT 100\nnews rumor: ACME down\nyou 10000 +0 0",
        "A yes 80\nB yes 25\nACME 98\nBOLT 100\nnews rumor: ACME down\nyou 10000 +0 0",
        # tick 1: somebody bet against snow, somebody spoke for hail
        "A yes 40\nB yes 50\nACME 110\nBOLT 95\nnews rumor: B no\nyou 10000 +0 0",
        "A yes 80\nB yes 40\nACME 110\nBOLT 95\nnews rumor: A yes\nyou 10000 +0 0",
        # tick 2: snow is resolved and not shown any more
        "A yes 20\nB yes 80\nACME 88\nBOLT 110\nnews rumor: B yes\nyou 10000 +0 0",
    ]


def test_an_order_is_a_trade_at_the_snapshots_own_price(snapshot: Snapshot) -> None:
    first, second = boards(snapshot, 1)
    assert first.trade(Order("buy_no", "A")) == Trade(1, "m-0", "no", 50.0, 0.6)
    assert second.trade(Order("buy_yes", "A")) == Trade(1, "m-2", "yes", 50.0, 0.8)
    assert first.trade(Order("open_short", "ACME")) == Trade(1, "BTC", "short", 500.0, 55000)
    assert first.trade(Order("hold")) is None


def test_the_optimal_is_the_best_order_of_every_board(snapshot: Snapshot) -> None:
    [(run, performance)] = play_snapshot(Scripted(hold), snapshot, [0])
    # tick 0: rain at 25 cents: +150, hail against 20 cents: +200; tick 1: BTC short from 55,000: +100, hail +200;
    # tick 2: rain at 20 cents and hail at 20 cents: +200
    assert performance.optimal == pytest.approx(150 + 200 + 100 + 200 + 200)
    assert (performance.pnl, performance.of_optimal, run.trades, run.answers) == (0.0, 0.0, [], 5)


def test_a_run_pays_for_what_it_buys_and_is_settled_at_the_end(snapshot: Snapshot) -> None:
    policy = Scripted(follow)
    [(run, performance)] = play_snapshot(policy, snapshot, [0])
    assert [(trade.target, trade.side) for trade in run.trades] == [
        ("BTC", "short"),
        ("BTC", "short"),
        ("m-1", "no"),
        ("m-2", "yes"),
        ("m-2", "yes"),
    ]
    short = 500 * (1 - 44000 / 49000)
    assert performance.pnl == pytest.approx(2 * short + 50 - 50 - 50)
    assert policy.asked[2].endswith("you 9800 +0 2")  # two positions of which a fifth is locked
    assert policy.asked[4].endswith("you 9700 +0 4")


def test_no_prompt_knows_the_end(snapshot: Snapshot) -> None:
    truth = snapshot.ground_truth
    other = msgspec.structs.replace(
        truth,
        market_outcomes={market: not outcome for market, outcome in truth.market_outcomes.items()},
        price_history={ticker: prices[:1] for ticker, prices in truth.price_history.items()},
    )
    asked = []
    for known in (truth, other):
        policy = Scripted(follow)
        play_snapshot(policy, msgspec.structs.replace(snapshot, ground_truth=known), [0, 1])
        asked.append(policy.asked)
    assert asked[0] == asked[1]


def test_answers_that_are_no_order_are_counted_and_seeds_differ(snapshot: Snapshot) -> None:
    drawn: list[int] = []

    def remember(prompt: str, seed: int) -> str:
        drawn.append(seed)
        return babble(prompt)

    runs = play_snapshot(Scripted(remember), snapshot, [0, 1])
    assert [(run.invalid, run.answers) for run, _ in runs] == [(5, 5), (5, 5)]
    assert len(set(drawn)) == 10
    assert version(snapshot, [0]) != version(snapshot, [0, 1])
