"""Values to keep: a record, a call, a dataset, a checkpoint, each with what a test wants to change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from babylon_assets.domain.datasets import Dataset, Sample, count, dataset_id
from babylon_assets.domain.trajectories import Message, Quarantined, RawSample, TrajectoryRecord
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.inference_calls import InferenceCall

WINDOW, LATER, LATEST = "2026-11-05T14:00", "2026-11-05T15:00", "2026-11-05T16:00"
START = datetime(2026, 11, 5, 14, 3, 7, 123000, tzinfo=UTC)
CHAIN = "babylon-agent"
PROMPT = [Message("system", "Trade. “Ünïcode” \u0001 \U0001f4c8"), Message("user", "A yes 40")]


def record(number: int = 0, **changes: Any) -> TrajectoryRecord:
    """A trajectory of two steps, the first with an answer."""
    facts = [
        make_step(0, 1, 1, 0.1 + 0.2, -7.5, "BUY_SHARES", "prediction", "m1", None, "yes", 25.0, True, None, False),
        make_step(1, 2, 2, None, None, "HOLD", None, None, None, None, None, None, "no way", True),
    ]
    fields: dict[str, Any] = {
        "window": WINDOW,
        "trajectory_id": f"t{number}",
        "agent_id": f"a{number}",
        "scenario_id": None,
        "shape": "full",
        "start_time": START,
        "end_time": START + timedelta(minutes=10),
        "final_status": "completed",
        "final_balance": 1e300,
        "final_pnl": None,
        "content_hash": f"hash{number}",
        "samples": [RawSample(0, 0, "call-0", "babylon-agent@3", 1.0, None, PROMPT, '{"action":"buy"}')],
        "facts": facts,
    }
    return TrajectoryRecord(**{**fields, **changes})


def quarantined(number: int = 0, **changes: Any) -> Quarantined:
    fields = {"window": WINDOW, "trajectory_id": f"q{number}", "reason": "not JSON", "place": "byte 7", "row_hash": "h"}
    return Quarantined(**{**fields, **changes})


def inference_call(number: int = 0, **changes: Any) -> InferenceCall:
    fields: dict[str, Any] = {
        "call_id": f"call-{number}",
        "created_at": START,
        "model": CHAIN,
        "policy": f"{CHAIN}@3",
        "policy_step": 3,
        "agent_id": "a0",
        "trajectory_id": "t0",
        "step": 0,
        "messages": PROMPT,
        "response": "hold",
        "prompt_token_ids": [5, 6],
        "token_ids": [7, 8, 2],
        "logprobs": [-0.1, -1e-17, -3.3333333333333335],
        "temperature": 1.0,
        "seed": 2**62,
        "latency_ms": 12.5,
        "finish_reason": "stop",
    }
    return InferenceCall(**{**fields, **changes})


def sample(number: int = 0, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "sample_id": f"t{number}/0/0",
        "window": WINDOW,
        "trajectory_id": f"t{number}",
        "agent_id": f"a{number}",
        "step": 0,
        "call": 0,
        "group": "g",
        "messages": PROMPT,
        "response": "hold",
        "model": f"{CHAIN}@3",
        "policy": f"{CHAIN}@3",
        "policy_step": 3,
        "prompt_token_ids": [5, 6],
        "token_ids": [7, 8, 2],
        "logprobs": [-0.1, -0.2, -0.3],
        "reward": number / 3,
        "components": {"outcome": 0.1, "heuristic": None},
        "advantage": 0.5,
        "trains_as": "policy_gradient",
        "skip_reason": None,
        "tokens": 3,
    }
    return Sample(**{**fields, **changes})


def dataset(*samples: Sample, window: str = WINDOW) -> Dataset:
    return Dataset(dataset_id(window, samples), window, list(samples), count(samples))


def root(chain: str = CHAIN, **changes: Any) -> Checkpoint:
    fields: dict[str, Any] = {
        "id": f"{chain}-0",
        "chain": chain,
        "step": 0,
        "base_model": "small",
        "weights_sha256": "w0",
        "seed": 0,
        "created_at": START,
    }
    return Checkpoint(**{**fields, **changes})


def checkpoint(step: int, window: str, dataset_id: str, **changes: Any) -> Checkpoint:
    fields: dict[str, Any] = {
        "id": f"{CHAIN}-{step}",
        "chain": CHAIN,
        "step": step,
        "base_model": "small",
        "weights_sha256": f"w{step}",
        "seed": 7,
        "created_at": START,
        "parent_id": f"{CHAIN}-{step - 1}",
        "window_id": window,
        "dataset_id": dataset_id,
        "backend": "embedded",
        "settings": {"learning_rate": 1.5e-3, "nested": {"a": [1, 2]}},
        "versions": {"torch": "2.13.0"},
        "metrics": {"loss": -0.25},
        "path": "/somewhere",
        "dagster_run_id": None,
    }
    return Checkpoint(**{**fields, **changes})


def scores() -> pd.DataFrame:
    """Three steps of two trajectories, one step with an outcome that is not known yet."""
    return pd.DataFrame(
        {
            "window": [WINDOW] * 3,
            "trajectory_id": ["t1", "t0", "t1"],
            "agent_id": ["a1", "a0", "a1"],
            "step": [0, 0, 1],
            "state": ["final", "invalid", "pending"],
            "worth": [0.1 + 0.2, float("nan"), float("nan")],
            "outcome": [0.1 + 0.2, -0.5, float("nan")],
            "heuristic": [0.5, 0.25, 0.5],
            "reward": [0.35, -0.475, float("nan")],
            "final": [True, True, False],
        }
    )
