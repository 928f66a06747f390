"""Rows of the game for tests: steps as the game writes them, and records made of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.environments.babylon.decoding import SourceRow, decode_row

WINDOW = "2026-10-01T00:00"
START = datetime(2026, 10, 1, 0, 5, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


def call(**changes: Any) -> dict[str, Any]:
    """A call of purpose action by one of our policies."""
    return {
        "model": "babylon-agent@3",
        "systemPrompt": "Trade.",
        "userPrompt": "A yes 40",
        "response": '{"action":"buy_yes"}',
        "temperature": 1.0,
        "maxTokens": 32,
        "purpose": "action",
        "callId": "call-0",
        "actionType": "BUY_PREDICTION_SHARES",
    } | changes


def step(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A step that buys YES of market `m1`."""
    return {
        "stepNumber": number,
        "timestamp": START_MS + 60_000 * number,
        "reward": 0.0,
        "environmentState": {"agentBalance": 1000.0, "agentPnL": 5.0, "openPositions": 0},
        "providerAccesses": [],
        "llmCalls": [call(callId=f"call-{number}")],
        "action": {
            "actionType": "BUY_PREDICTION_SHARES",
            "parameters": {"marketType": "prediction", "marketId": "m1", "side": "YES", "amount": 25},
            "success": True,
        },
    } | changes


def source_row(steps: Any, **changes: Any) -> SourceRow:
    """A row with these steps: text, bytes, or what becomes JSON."""
    text = steps if isinstance(steps, str | bytes) else json.dumps(steps)
    columns: dict[str, Any] = {
        "window": WINDOW,
        "window_given": True,
        "trajectory_id": "t1",
        "agent_id": "a1",
        "scenario_id": WINDOW,
        "start_time": START,
        "end_time": START + timedelta(minutes=10),
        "final_status": "completed",
        "final_balance": 1000.0,
        "final_pnl": 7.0,
        "steps_json": text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text,
    }
    return SourceRow(**(columns | changes))


def record(steps: Any, **changes: Any) -> TrajectoryRecord:
    """The record of a row that can be read."""
    decoded = decode_row(source_row(steps, **changes))
    assert isinstance(decoded, TrajectoryRecord), decoded
    return decoded


def refused(steps: Any, **changes: Any) -> Quarantined:
    """The quarantine entry of a row that cannot be read."""
    decoded = decode_row(source_row(steps, **changes))
    assert isinstance(decoded, Quarantined), decoded
    return decoded
