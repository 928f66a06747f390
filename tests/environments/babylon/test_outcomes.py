"""What trades turned out to be worth: entry prices, late resolutions, closes, horizons, and what is not known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from babylon_assets.domain.frames import STEP_COLUMNS
from babylon_assets.environments.babylon.details import DETAIL, steps_frame
from babylon_assets.environments.babylon.outcomes import OutcomeTables, trade_worth

AT = datetime(2026, 10, 1, 0, 10, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)
MINUTE = timedelta(minutes=1)


def steps_of(*changes: dict[str, Any]) -> pd.DataFrame:
    """Steps that each buy YES of market `m1`, with changes."""
    base: dict[str, Any] = dict.fromkeys((*STEP_COLUMNS, *DETAIL)) | {
        "window": "2026-10-01T00:00",
        "trajectory_id": "t1",
        "agent_id": "a1",
        "timestamp_ms": AT_MS,
        "moment_ms": AT_MS,
        "action_type": "BUY_PREDICTION_SHARES",
        "market_type": "prediction",
        "market_id": "m1",
        "side": "yes",
        "success": True,
        "invalid": False,
    }
    empty = steps_frame([])
    rows = [base | {"step": number} | change for number, change in enumerate(changes)]
    return pd.DataFrame(rows, columns=[*STEP_COLUMNS, *DETAIL]).astype(empty.dtypes.to_dict())


PERP = {"action_type": "OPEN_PERP_POSITION", "market_type": "perp", "market_id": None, "ticker": "ACME", "side": "long"}


def tables(**rows: list[dict[str, Any]]) -> OutcomeTables:
    """Tables with these rows; a column that a row leaves out is missing."""
    specs: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
        "trades": (OutcomeTables.TRADES, {"agent_id": "a1", "action": "buy", "amount": 25.0, "executed_at": AT}),
        "markets": (OutcomeTables.MARKETS, {"resolved": False, "end_date": AT + MINUTE, "updated_at": AT}),
        "prediction_prices": (OutcomeTables.PREDICTION_PRICES, {"created_at": AT - MINUTE}),
        "stock_prices": (OutcomeTables.STOCK_PRICES, {"ticker": "ACME"}),
        "market_outcomes": (OutcomeTables.MARKET_OUTCOMES, {"window": "2026-10-01T00:00", "created_at": AT + MINUTE}),
    }
    frames: dict[str, Any] = {
        name: pd.DataFrame([base | row for row in rows.get(name, [])], columns=list(spec)).astype(spec)
        for name, (spec, base) in specs.items()
    }
    return OutcomeTables(**frames)


def worth(steps: pd.DataFrame, known: OutcomeTables, **options: Any) -> list[tuple[float | None, str]]:
    """Worth (rounded, None where it is not known) and state of each step."""
    result = trade_worth(steps, known, **options)
    return [
        (None if np.isnan(w) else round(float(w), 6), s) for w, s in zip(result["worth"], result["state"], strict=True)
    ]


def bought(price: float, side: str = "yes", **changes: Any) -> dict[str, Any]:
    return {"market_type": "prediction", "market_id": "m1", "side": side, "price": price} | changes


def resolved(resolution: bool | None, **changes: Any) -> dict[str, Any]:
    return {"market_id": "m1", "resolved": True, "resolution": resolution, "updated_at": AT + 5 * MINUTE} | changes


class TestPrediction:
    @pytest.mark.parametrize(
        ("side", "price", "resolution", "expected"),
        [
            ("yes", 0.90, True, 0.10),
            ("yes", 0.90, False, -0.90),
            ("yes", 0.40, True, 0.60),
            ("no", 0.25, False, 0.75),
            ("no", 0.25, True, -0.25),
        ],
    )
    def test_a_share_is_worth_what_it_paid_less_what_it_cost(
        self, side: str, price: float, resolution: bool, expected: float
    ) -> None:
        known = tables(trades=[bought(price, side)], markets=[resolved(resolution)])
        assert worth(steps_of({"side": side}), known) == [(expected, "final")]

    def test_a_trade_that_the_record_lacks_earns_nothing(self) -> None:
        quotes = [{"market_id": "m1", "yes_price": 0.05, "no_price": 0.95, "created_at": AT - MINUTE}]
        known = tables(prediction_prices=quotes, markets=[resolved(True)])
        assert worth(steps_of({}, {"side": "no"}), known) == [(None, "unknown"), (None, "unknown")]

    def test_a_trade_is_of_one_step(self) -> None:
        steps = steps_of(*({"timestamp_ms": AT_MS + 1000 * number} for number in range(20)))
        result = worth(
            steps, tables(trades=[bought(0.4, executed_at=AT + 5 * timedelta(seconds=1))], markets=[resolved(True)])
        )
        assert (
            result[5] == (0.6, "final")
            and [result[place] for place in range(20) if place != 5] == [(None, "unknown")] * 19
        )

    @pytest.mark.parametrize(("amount", "expected"), [(0.01, 0.006), (0.5, 0.3), (1.0, 0.6), (1e6, 0.6)])
    def test_a_stake_below_the_least_counts_for_its_share(self, amount: float, expected: float) -> None:
        known = tables(trades=[bought(0.4, amount=amount)], markets=[resolved(True)])
        assert worth(steps_of({}), known) == [(expected, "final")]

    @pytest.mark.parametrize("amount", [0.0, -1e9, float("nan"), float("inf")])
    def test_what_is_no_stake_earns_nothing(self, amount: float) -> None:
        known = tables(trades=[bought(0.4, amount=amount)], markets=[resolved(True)])
        assert worth(steps_of({}), known) == [(None, "unknown")]

    @pytest.mark.parametrize(
        ("price", "resolution", "expected"), [(4.0, True, -1.0), (1.5, True, -0.5), (1.5, False, -1.0)]
    )
    def test_a_share_that_costs_more_than_it_can_pay_loses(
        self, price: float, resolution: bool, expected: float
    ) -> None:
        known = tables(trades=[bought(price)], markets=[resolved(resolution)])
        assert worth(steps_of({}), known) == [(expected, "final")]

    @pytest.mark.parametrize("price", [0.0, 0.01, 0.3, 1.6, -0.4])
    def test_a_price_that_the_quotes_contradict_earns_nothing(self, price: float) -> None:
        quotes = [
            {"market_id": "m1", "yes_price": p, "no_price": 1 - p, "created_at": AT + minute * MINUTE}
            for p, minute in ((0.5, -9), (0.55, 2))
        ]
        known = tables(trades=[bought(price)], markets=[resolved(True)], prediction_prices=quotes)
        assert worth(steps_of({}), known) == [(None, "unknown")]
        fair = tables(trades=[bought(1.1)], markets=[resolved(True)], prediction_prices=quotes)
        assert worth(steps_of({}), fair) == [(-0.1, "final")]

    def test_a_sale_is_worth_its_price_less_what_the_share_had_cost(self) -> None:
        sale = bought(0.7, action="sell", amount=35.0, executed_at=AT)
        step, before = steps_of({"action_type": "SELL_SHARES"}), bought(0.4, executed_at=AT - MINUTE)
        even = [{"market_id": "m1", "yes_price": 0.5, "no_price": 0.5}]
        assert worth(step, tables(trades=[before, sale], prediction_prices=even)) == [(0.3, "final")]
        assert worth(step, tables(trades=[sale | {"pnl": 10.0}], prediction_prices=even)) == [(0.2, "final")]
        assert worth(step, tables(trades=[sale], prediction_prices=even)) == [(None, "unknown")]
        for price in (0.7, 1e9):
            unquoted = tables(trades=[before, sale | {"price": price}])
            assert worth(step, unquoted) == [(None, "unknown")]

    def test_the_trade_row_nearest_in_time_with_the_same_side_is_the_steps_own(self) -> None:
        trades = [
            bought(0.1, executed_at=AT - 10 * MINUTE),
            bought(0.3, executed_at=AT + MINUTE),
            bought(0.5, "no", executed_at=AT),
            bought(0.7, agent_id="a2", executed_at=AT),
            bought(0.8, market_id="m2", executed_at=AT),
        ]
        assert worth(steps_of({}), tables(trades=trades, markets=[resolved(True)])) == [(0.7, "final")]

    def test_a_trade_row_far_in_time_is_not_the_steps_own(self) -> None:
        known = tables(trades=[bought(0.3, executed_at=AT + 30 * MINUTE)], markets=[resolved(True)])
        assert worth(steps_of({}), known) == [(None, "unknown")]

    def test_a_side_that_the_step_lacks_comes_from_the_trade_row_or_stays_unknown(self) -> None:
        step = steps_of({"side": None})
        assert worth(step, tables(trades=[bought(0.25, "NO")], markets=[resolved(False)])) == [(0.75, "final")]
        assert worth(step, tables(markets=[resolved(False)])) == [(None, "unknown")]

    def test_an_open_market_is_pending_and_a_missing_one_unknown(self) -> None:
        assert worth(steps_of({}), tables(trades=[bought(0.4)], markets=[{"market_id": "m1"}])) == [(None, "pending")]
        assert worth(steps_of({}), tables(trades=[bought(0.4)])) == [(None, "unknown")]

    def test_a_market_that_was_called_off_is_unknown(self) -> None:
        assert worth(steps_of({}), tables(trades=[bought(0.4)], markets=[resolved(None)])) == [(None, "unknown")]

    def test_what_resolved_later_is_not_known_yet(self) -> None:
        known = tables(trades=[bought(0.4)], markets=[resolved(True)])
        assert worth(steps_of({}), known, as_of=AT + 4 * MINUTE) == [(None, "pending")]
        assert worth(steps_of({}), known, as_of=AT + 6 * MINUTE) == [(0.6, "final")]

    @pytest.mark.parametrize(
        ("outcome", "expected"),
        [
            ("YES", (0.6, "final")),
            ("no", (-0.4, "final")),
            ("UNRESOLVED", (None, "pending")),
            (None, (None, "pending")),
        ],
    )
    def test_the_games_note_stands_in_for_a_market_that_is_gone(
        self, outcome: str | None, expected: tuple[float | None, str]
    ) -> None:
        known = tables(trades=[bought(0.4)], market_outcomes=[{"market_id": "m1", "outcome": outcome}])
        assert worth(steps_of({}), known) == [expected]

    def test_the_market_itself_goes_before_the_note_once_it_is_resolved(self) -> None:
        note = {"market_id": "m1", "outcome": "NO"}
        trades = [bought(0.4)]
        assert worth(steps_of({}), tables(trades=trades, markets=[resolved(True)], market_outcomes=[note])) == [
            (0.6, "final")
        ]
        open_market = [{"market_id": "m1"}]
        assert worth(steps_of({}), tables(trades=trades, markets=open_market, market_outcomes=[note])) == [
            (-0.4, "final")
        ]

    def test_the_latest_note_counts(self) -> None:
        notes = [{"market_id": "m1", "outcome": "UNRESOLVED"}, {"market_id": "m1", "outcome": "YES"}]
        assert worth(steps_of({}), tables(trades=[bought(0.4)], market_outcomes=notes)) == [(0.6, "final")]


def opened(price: float, side: str = "long", **changes: Any) -> dict[str, Any]:
    return {"market_type": "perp", "ticker": "ACME", "action": "open", "side": side, "price": price} | changes


def priced(price: float, minutes: float, ticker: str = "ACME") -> dict[str, Any]:
    return {"ticker": ticker, "price": price, "timestamp": AT + minutes * MINUTE}


class TestPerp:
    @pytest.mark.parametrize(
        ("side", "exit_price", "expected"),
        [
            ("long", 105.0, 0.5),
            ("short", 105.0, -0.5),
            ("long", 90.0, -1.0),
            ("long", 150.0, 1.0),
            ("short", 50.0, 1.0),
        ],
    )
    def test_the_return_up_to_the_agents_own_close_on_a_scale(
        self, side: str, exit_price: float, expected: float
    ) -> None:
        close = opened(exit_price, side, action="close", executed_at=AT + 3 * MINUTE)
        later = opened(1.0, side, action="close", executed_at=AT + 9 * MINUTE)
        prices = [priced(100.0, -1), priced(exit_price, 2), priced(7.0, 60)]
        known = tables(trades=[opened(100.0, side), close, later], stock_prices=prices)
        assert worth(steps_of(PERP | {"side": side}), known) == [(expected, "final")]

    def test_without_a_close_it_is_the_first_price_at_the_horizon(self) -> None:
        prices = [priced(100.0, -1), priced(130.0, 29), priced(104.0, 30), priced(150.0, 31)]
        known = tables(trades=[opened(100.0)], stock_prices=prices)
        assert worth(steps_of(PERP), known, horizon_minutes=30) == [(0.4, "final")]

    def test_before_the_horizon_it_is_pending(self) -> None:
        prices = [priced(100.0, -1), priced(130.0, 29)]
        known = tables(trades=[opened(100.0)], stock_prices=prices)
        assert worth(steps_of(PERP), known, horizon_minutes=30) == [(None, "pending")]
        later = tables(trades=[opened(100.0)], stock_prices=[*prices, priced(101.0, 30)])
        assert worth(steps_of(PERP), later, horizon_minutes=30, as_of=AT + 29 * MINUTE) == [(None, "pending")]

    def test_a_close_before_the_opening_or_by_another_agent_or_of_another_ticker_does_not_count(self) -> None:
        closes = [
            opened(200.0, action="close", executed_at=AT - MINUTE),
            opened(200.0, action="close", executed_at=AT),
            opened(200.0, action="close", executed_at=AT + MINUTE, agent_id="a2"),
            opened(200.0, action="close", executed_at=AT + MINUTE, ticker="BOLT"),
        ]
        assert worth(steps_of(PERP), tables(trades=[opened(100.0), *closes])) == [(None, "pending")]

    def test_the_scale_is_a_setting(self) -> None:
        known = tables(trades=[opened(100.0)], stock_prices=[priced(100.0, 0), priced(105.0, 60)])
        assert worth(steps_of(PERP), known, full_scale_percent=50) == [(0.1, "final")]

    def test_the_games_note_stands_in_where_there_are_no_prices(self) -> None:
        note = [{"ticker": "ACME", "change_percent": -4.0}]
        known = tables(trades=[opened(100.0, "short")], market_outcomes=note)
        assert worth(steps_of(PERP | {"side": "short"}), known) == [(0.4, "final")]
        unfinished = tables(trades=[opened(100.0)], market_outcomes=note, stock_prices=[priced(100.0, 0)])
        assert worth(steps_of(PERP), unfinished) == [(None, "pending")]

    @pytest.mark.parametrize("price", [0.0, 0.01, 90.0, 1e9])
    def test_a_price_that_the_quotes_contradict_earns_nothing(self, price: float) -> None:
        flat = [priced(100.0, minute) for minute in range(-2, 63)]
        assert worth(steps_of(PERP), tables(trades=[opened(price)], stock_prices=flat)) == [(None, "unknown")]
        close = opened(price, action="close", executed_at=AT + 2 * MINUTE)
        own = [*flat, priced(price, 1.99)] if price else flat
        assert worth(steps_of(PERP), tables(trades=[opened(100.0), close], stock_prices=own)) == [(0.0, "final")]
        assert worth(steps_of(PERP), tables(trades=[opened(100.0), close])) == [(None, "pending")]
        late = tables(trades=[opened(price)], stock_prices=[priced(100.0, minute) for minute in (40, 60)])
        assert worth(steps_of(PERP), late) == [(None, "unknown")]

    def test_a_close_is_worth_what_it_realised(self) -> None:
        step = steps_of(PERP | {"action_type": "close_position"})
        close = opened(105.0, action="close")
        before = [opened(100.0, executed_at=AT - 9 * MINUTE), close]
        prices = [priced(105.0, -1)]
        assert worth(step, tables(trades=before, stock_prices=prices)) == [(0.5, "final")]
        assert worth(step, tables(trades=[close | {"pnl": -0.5}], stock_prices=prices)) == [(-0.2, "final")]
        assert worth(step, tables(trades=[close], stock_prices=prices)) == [(None, "unknown")]
        assert worth(step, tables(trades=before)) == [(None, "unknown")]

    def test_no_side_and_no_price_are_unknown(self) -> None:
        prices = [priced(100.0, 0), priced(105.0, 60)]
        assert worth(steps_of(PERP | {"side": None}), tables(stock_prices=prices)) == [(None, "unknown")]
        assert worth(steps_of(PERP), tables()) == [(None, "unknown")]


class TestNoTrade:
    @pytest.mark.parametrize(
        "change",
        [
            {"action_type": "HOLD", "market_type": None, "market_id": None, "side": None},
            {"action_type": "TRADING_DECISION", "success": False},
        ],
    )
    def test_a_hold_is_worth_nothing(self, change: dict[str, Any]) -> None:
        assert worth(steps_of(change), tables(trades=[bought(0.4)], markets=[resolved(True)])) == [(0.0, "no_trade")]

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *(("CREATE_POST", "social"), ("LIKE_POST", "social"), ("pending", "unfinished"), ("DANCE", None)),
            *(("TRADE", "trade"), ("CLOSE_POSITION", "trade")),
        ],
    )
    def test_what_no_price_speaks_of_is_unknown(self, name: str, kind: str | None) -> None:
        step = steps_of({"action_type": name, "market_type": None, "market_id": None, "side": None})
        result = trade_worth(step, tables())
        assert (result["state"][0], result["kind"][0]) == ("unknown", kind)
        assert np.isnan(result["worth"][0])

    def test_a_decision_that_turns_out_to_be_a_close_opens_nothing(self) -> None:
        close = opened(100.0, action="close", pnl=0.5)
        known = tables(trades=[close], stock_prices=[priced(100.0, 0), priced(105.0, 60)])
        assert worth(steps_of(PERP | {"action_type": "TRADING_DECISION"}), known) == [(0.2, "final")]

    def test_an_action_that_could_not_be_carried_out_has_no_worth(self) -> None:
        known = tables(trades=[bought(0.4)], markets=[resolved(True)])
        assert worth(steps_of({"success": False, "invalid": True}), known) == [(None, "invalid")]

    def test_a_purchase_of_nobody_knows_what_is_unknown(self) -> None:
        nameless = {"action_type": "BUY_SHARES", "market_type": None, "market_id": None}
        half = {"action_type": "open_long", "market_type": "perp", "market_id": None}
        decision = {"action_type": "TRADING_DECISION", "market_type": None, "market_id": None}
        assert worth(steps_of(nameless, half, decision), tables()) == [
            (None, "unknown"),
            (None, "unknown"),
            (0.0, "no_trade"),
        ]


class TestFrames:
    def test_the_index_of_the_steps_is_kept(self) -> None:
        steps = steps_of({}, PERP, {"action_type": "HOLD", "market_type": None}).set_axis([7, 3, 3])
        known = tables(trades=[bought(0.4)], markets=[resolved(True)])
        result = trade_worth(steps, known)
        assert list(result.index) == [7, 3, 3]
        assert list(result["state"]) == ["final", "unknown", "no_trade"]

    def test_no_steps_and_nothing_known(self) -> None:
        assert trade_worth(steps_frame([]), OutcomeTables.empty()).empty
        assert worth(steps_of({}, PERP), OutcomeTables.empty()) == [(None, "unknown"), (None, "unknown")]

    def test_the_order_of_rows_does_not_matter(self) -> None:
        rng = np.random.default_rng(1)
        sides = rng.choice(["yes", "no"], 40)
        steps = steps_of(
            *({"side": side, "market_id": f"m{n % 5}", "agent_id": f"a{n}"} for n, side in enumerate(sides))
        )
        known = tables(
            trades=[bought(0.1 + n / 50, s, market_id=f"m{n % 5}", agent_id=f"a{n}") for n, s in enumerate(sides)],
            markets=[resolved(n % 2 == 0, market_id=f"m{n}") for n in range(5)],
        )
        straight = trade_worth(steps, known)
        mixed = trade_worth(steps.sample(frac=1, random_state=2), known)
        pd.testing.assert_frame_equal(mixed.sort_index(), straight)
