"""A report with everything in it, hostile texts included."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from babylon_assets.domain.verdict_table import VerdictRow
from babylon_assets.domain.windows import HOURLY
from babylon_assets.report.summary import (
    Cost,
    EmptiedWindow,
    EvaluationSummary,
    JobSummary,
    PolicySummary,
    PromotionSummary,
    QuarantineSummary,
    Report,
    VerdictSummary,
    WindowSummary,
)

NOW = datetime(2026, 11, 25, 20, 34, tzinfo=UTC)
HOSTILE = (
    "<script>alert('1')</script><img src=https://evil.example/x onerror=alert(2)> \"quoted\" & \u202ereversed \x00"
)
CHAIN = "babylon-agent"
COUNTS = {
    **{"actions": 400, "recognised": 398, "trades": 81, "linked": 79, "valued": 71, "pending": 7},
    "left out: test users": 13,
}


def window(back: int, **changes: Any) -> WindowSummary:
    """The window that began `back` hours before the running one; by default it was trained."""
    start = NOW.replace(minute=0) - timedelta(hours=back)
    given: dict[str, Any] = {
        "id": HOURLY.of(start).id,
        "state": "trained",
        "ends": start + timedelta(hours=1),
        "trajectories": 32,
        "agents": 32,
        "samples": 512,
        "trained_on": f"{7_000 + back:,}",
        "reward": 0.5 - 0.35 * math.exp((back - 40) / 12) + 0.04 * math.sin(back * 2.1),
        "deviation": 0.3,
        "references": {"oracle": 0.56 + 0.03 * math.sin(back), "expert": 0.28, "random": 0.05},
        "policy": f"{CHAIN}@{40 - back}",
        "parent": f"{CHAIN}@{39 - back}",
    }
    return WindowSummary(**{**given, **changes})


def nothing(back: int, state: str, reason: str | None, **changes: Any) -> WindowSummary:
    """A window that no checkpoint came of."""
    return window(back, **{"state": state, "reason": reason, "policy": None, "reward": None, **changes})


def promotion(back: int, **changes: Any) -> PromotionSummary:
    given: dict[str, Any] = {
        "kind": "promotion",
        "before": f"{CHAIN}@{39 - back}",
        "after": f"{CHAIN}@{40 - back}",
        "window": window(back).id,
        "by": "the gate",
        "why": "market +0.031 [0.012, 0.050] against the champion, valid actions 0.99",
        "at": NOW - timedelta(hours=back, minutes=-70),
    }
    return PromotionSummary(**{**given, **changes})


def job(back: int, **changes: Any) -> JobSummary:
    given: dict[str, Any] = {
        "window": window(back).id,
        "chain": CHAIN,
        "state": "failed",
        "backend": "serverless",
        "started_at": NOW - timedelta(hours=3),
        "heartbeat": NOW - timedelta(minutes=3),
        "reason": None,
    }
    return JobSummary(**{**given, **changes})


def well(**changes: Any) -> Report:
    """A loop in order."""
    given: dict[str, Any] = {
        "chain": CHAIN,
        "place": "127.0.0.1:5432/babylon",
        "made_at": NOW,
        "windows": [window(back) for back in range(36, 0, -1)],
        "head": PolicySummary(name=f"{CHAIN}@39", window=window(1).id, made_at=NOW - timedelta(minutes=20)),
        "free_gib": 75.2,
    }
    return Report(**{**given, **changes})


def eventful() -> list[WindowSummary]:
    """Hours of every state, in order."""
    hours = {row.id: row for row in well().windows}
    others = [
        nothing(3, "ready", None),
        nothing(8, "skipped", "nothing in the window can be trained on: 512 samples, 512 skip: answer is not known"),
        nothing(14, "failed", f"SourceError: {HOSTILE}"),
        nothing(20, "thin", "2 agents, MIN_AGENTS_PER_WINDOW is 3", reward=0.31),
        window(5, quarantined=9),
        window(6, recorded=412, understood=0.9, unknown_words="marketType swap (2)", understanding=COUNTS),
        window(11, rejected="rejected: market -0.041 [-0.060, -0.021] against the champion"),
    ]
    return list({**hours, **{row.id: row for row in others}}.values())


VERDICT = VerdictSummary(
    policy=f"{CHAIN}@38",
    window=window(2).id,
    passed=False,
    why=f"its market reward is -0.041 [-0.060, -0.021] {HOSTILE}",
    at=NOW,
    rows=[
        VerdictRow("market", HOSTILE, "not worse by more than 0", False),
        VerdictRow("finite", "it is", "", True),
    ],
)
MARKET = EvaluationSummary(
    policy=f"{CHAIN}@39",
    window=window(1).id,
    evaluation="market",
    value=0.481,
    low=0.44,
    high=0.52,
    baseline=f"{CHAIN}@38",
    at=NOW,
)
COSTS = (
    Cost(backend="serverless", jobs=14, seconds=5231.4, tokens=18_400_000, usd=41.7, usd_today=3.25),
    Cost(backend="embedded", jobs=22, seconds=61.2, tokens=154_000, usd=0.0, usd_today=0.0),
)
QUARANTINED = (
    ("stepsJson is not JSON", 41, "byte 18211"),
    ("endTime is before startTime", 7, "endTime"),
    (HOSTILE, 1, HOSTILE),
)
SAMPLES = {
    "policy_gradient": 14_200,
    "recompute": 210,
    "sft": 1_800,
    "skip: held out": 1_790,
    "skip: no reward": 4,
}


def full() -> Report:
    """A loop with every section, and everything that can need a person."""
    rollback = promotion(9, kind="rollback", before=f"{CHAIN}@35", by="ada", why="live valid actions fell to 0.71")
    others = [promotion(back) for back in (10, 16, 19, 24, 28, 33)]
    estimate = replace(MARKET, window=None, evaluation="off_policy", value=0.4, low=None, high=None, baseline=None)
    return well(
        windows=eventful(),
        promoted=PolicySummary(name=f"{CHAIN}@38", window=window(2).id, made_at=NOW - timedelta(minutes=50)),
        running=[
            job(1, state="training", backend="embedded"),
            job(2, state="submitted", heartbeat=NOW - timedelta(hours=2)),
        ],
        failed=[job(3, reason="the daily cap of $20.00 is reached")],
        promotions=[promotion(2), rollback, *others],
        verdict=VERDICT,
        evaluations=[MARKET, estimate],
        quarantine=[
            QuarantineSummary(reason=why, rows=rows, windows=2, newest=NOW, trajectory=f"t-{rows}", place=place)
            for why, rows, place in QUARANTINED
        ],
        emptied=[
            EmptiedWindow(window=window(6).id, frozen_again=False),
            EmptiedWindow(window=window(7).id, frozen_again=True),
        ],
        costs=COSTS,
        samples=SAMPLES,
        odd_ids={"2026-10-01": 3, HOSTILE: 1},
        free_gib=1.4,
    )
