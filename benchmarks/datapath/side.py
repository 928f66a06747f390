"""One window the product's way, the plain way and the least way, in turns in one process on one embedded server."""

from __future__ import annotations

import asyncio

from babylon_assets.ledger.database import Database
from babylon_assets.ledger.scores import read_scores
from babylon_assets.orchestration.resources import Installation
from benchmarks.datapath import least, plain
from benchmarks.datapath.line import PARTS
from benchmarks.datapath.measure import Spent, both, cpu, measured, wall
from benchmarks.report import Row, at_least, at_most

REPEATS = 5
MODEL = "babylon-agent"
_KEPT = (
    *("windows", "raw_trajectories", "trajectory_scores", "training_dataset_trajectories", "training_datasets"),
    "quarantined_trajectories",
)


def side_by_side(installation: Installation, database: Database, window: str) -> list[Row]:
    """Medians of several turns; before each, nothing of the window is kept.

    The plain way leaves compressing to the server and ours does not, so that the work of both ends is counted as well.
    """
    [pid_file] = installation.settings.home.rglob("postmaster.pid")
    server = int(pid_file.read_text().split()[0])
    plainly: list[Spent] = []
    leastly: list[Spent] = []
    parts: dict[str, list[Spent]] = {name: [] for name in PARTS}
    for _ in range(REPEATS):
        _forget(database)
        plainly.append(measured(lambda: asyncio.run(plain.run(database.url, window, MODEL)), server))
        leastly.append(measured(lambda: least.run(database, window), server))
        for name, part in PARTS.items():
            parts[name].append(measured(lambda part=part: part(installation, window), server))  # type: ignore[misc]
    _compare_rewards(database, window)
    ours = [sum(turn, Spent(0, 0)) for turn in zip(*parts.values(), strict=True)]
    return [
        Row("one window, ours, cpu", cpu(ours), "s"),
        *(Row(f"  of which {name}", cpu(part), "s") for name, part in parts.items()),
        Row("one window, ours, wall", wall(ours), "s"),
        Row("one window, plain way, cpu", cpu(plainly), "s"),
        Row("one window, plain way, wall", wall(plainly), "s"),
        Row("one window, COPY and simdjson alone, cpu", cpu(leastly), "s"),
        Row("one window, COPY and simdjson alone, wall", wall(leastly), "s"),
        Row("one window, with the server's cpu: ours", both(ours), "s"),
        Row("one window, with the server's cpu: plain way", both(plainly), "s"),
        Row("one window, with the server's cpu: COPY and simdjson alone", both(leastly), "s"),
        at_least("plain way over ours, cpu", cpu(plainly) / cpu(ours), "times", 4),
        at_least("plain way over ours, cpu with the server's", both(plainly) / both(ours), "times", 4),
        at_most("ours over COPY and simdjson alone, wall", wall(ours) / wall(leastly), "times", 1.8),
        at_most("ours over COPY and simdjson alone, cpu", cpu(ours) / cpu(leastly), "times", 1.8),
        at_most("ours over COPY and simdjson alone, cpu with the server's", both(ours) / both(leastly), "times", 1.8),
    ]


def _forget(database: Database) -> None:
    """Empty our tables and those of the plain way; what was deleted is not left to be cleared away in the next turn."""
    with database.connect_autocommit() as conn:
        conn.execute(plain.TABLES.encode())
        for table in _KEPT:
            conn.execute(f"DELETE FROM babylon_training.{table}".encode())
        for table in _KEPT:
            conn.execute(f"VACUUM babylon_training.{table}".encode())
        conn.execute("CHECKPOINT")


def _compare_rewards(database: Database, window: str) -> None:
    """Both ways must have come to the same rewards, or the comparison is of different work."""
    with database.connect_autocommit() as conn:
        conn.execute(plain.TABLES.encode())
        found = read_scores(conn, window)
    expected = asyncio.run(plain.run(database.url, window, MODEL))
    rewards = dict(zip(zip(found["trajectory_id"], found["step"], strict=True), found["reward"], strict=True))
    far = [key for key, reward in expected.items() if reward is not None and not abs(rewards[key] - reward) < 1e-9]
    if len(rewards) != len(expected) or len(far) > 0.02 * len(expected):
        raise SystemExit(f"the two ways disagree about {len(far)} of {len(expected)} rewards, such as {far[:1]}")
