"""Scoring a million steps: what each trade was worth, every scorer that has a weight, and the reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from babylon_assets.domain.frames import STEP_COLUMNS
from babylon_assets.environments.babylon.details import DETAIL, steps_frame
from babylon_assets.environments.babylon.outcomes import OutcomeTables
from babylon_assets.environments.babylon.scorers import score_game_steps
from benchmarks.datapath.measure import cpu, measured, wall
from benchmarks.report import Row, at_most

_Array = np.ndarray[Any, Any]
STEPS, TRADES, AGENTS, MARKETS = 1_000_000, 200_000, 2000, 200
_START_MS = 1_790_812_800_000


def scoring() -> list[Row]:
    """Medians of three times."""
    steps, tables = _steps(), _tables()
    spent = [measured(lambda: score_game_steps(steps, tables)) for _ in range(3)]
    return [at_most("scoring 1,000,000 steps", wall(spent), "s", 1), Row("  cpu", cpu(spent), "s")]


def _steps() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    numbers = np.arange(STEPS)
    kinds = rng.choice(np.array(["BUY_SHARES", "HOLD", "INVALID_ACTION"], dtype=object), STEPS)
    buys = kinds == "BUY_SHARES"
    nothing = np.full(STEPS, None, dtype=object)
    columns = dict.fromkeys((*STEP_COLUMNS, *DETAIL), nothing) | {
        "window": np.full(STEPS, "2026-10-01T00:00", dtype=object),
        "trajectory_id": np.array([f"t{n}" for n in range(STEPS // 10)], dtype=object).repeat(10),
        "agent_id": _names("agent", AGENTS, numbers // 10),
        "step": numbers % 10,
        "timestamp_ms": _START_MS + rng.integers(0, 3_600_000, STEPS),
        "pnl": rng.normal(size=STEPS),
        "action_type": kinds,
        "market_type": np.where(buys, "prediction", nothing),
        "market_id": np.where(buys, _names("m", MARKETS, rng.integers(0, MARKETS, STEPS)), nothing),
        "side": np.where(buys, rng.choice(np.array(["yes", "no"], dtype=object), STEPS), nothing),
        "success": kinds != "INVALID_ACTION",
        "invalid": kinds == "INVALID_ACTION",
    }
    columns["moment_ms"] = columns["timestamp_ms"]
    return pd.DataFrame(columns).astype(steps_frame([]).dtypes.to_dict())


def _tables() -> OutcomeTables:
    rng = np.random.default_rng(2)
    trades = {
        "agent_id": _names("agent", AGENTS, rng.integers(0, AGENTS, TRADES)),
        "market_type": "prediction",
        "market_id": _names("m", MARKETS, rng.integers(0, MARKETS, TRADES)),
        "ticker": None,
        "action": "buy",
        "side": rng.choice(np.array(["yes", "no"], dtype=object), TRADES),
        "amount": 10.0,
        "price": rng.uniform(0.1, 0.9, TRADES),
        "pnl": np.nan,
        "executed_at": pd.to_datetime(_START_MS + rng.integers(0, 3_600_000, TRADES), unit="ms", utc=True),
    }
    markets = {
        "market_id": [f"m{n}" for n in range(MARKETS)],
        "resolved": True,
        "resolution": rng.random(MARKETS) < 0.5,
        **dict.fromkeys(("end_date", "updated_at"), pd.Timestamp(_START_MS, unit="ms", tz="UTC")),
    }
    empty = OutcomeTables.empty()
    return OutcomeTables(
        pd.DataFrame(trades).astype(OutcomeTables.TRADES),
        pd.DataFrame(markets).astype(OutcomeTables.MARKETS),
        empty.prediction_prices,
        empty.stock_prices,
        empty.market_outcomes,
    )


def _names(kind: str, count: int, numbers: _Array) -> _Array:
    names: _Array = np.array([f"{kind}{n}" for n in range(count)], dtype=object)
    return names.take(numbers % count)
