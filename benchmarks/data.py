"""The data path: from the game's rows to a frozen dataset, beside the plain way and beside the least that must be done.

Both ways run on the same rows, in turns, on one embedded server; cpu is that of this process, the server's is its own.
The plain way is in `benchmarks.plain`; it uses psycopg, as asyncpg is no dependency of the product. The least is COPY
out, msgspec over the fields that are needed, COPY in. Figures without a goal are only reported.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from psycopg import Connection

from babylon_assets.assets import raw_trajectories, scored_trajectories, training_datasets
from babylon_assets.assets.installation import Installation
from babylon_assets.core.decoding import SourceRow, decode_row
from babylon_assets.core.trajectories import Quarantined
from babylon_assets.core.windows import next_window, window_bounds
from babylon_assets.game import source
from babylon_assets.game.fixture import copy_rows, create_game_tables
from babylon_assets.settings import Settings, load_settings
from babylon_assets.store.database import Database, migrate, open_database, stop_embedded
from babylon_assets.store.scores import read_scores
from babylon_assets.store.tables import pack
from benchmarks import plain
from benchmarks.report import Row, at_least, at_most, publish

TRAJECTORIES, STEPS, AGENTS = 2000, 12, 200
FIRST = "2026-10-01T00:00"
REPEATS = 3
SPARSE_RUN, SPARSE, SPARSE_TRAJECTORIES = 24, 720, 50
MANY_WINDOWS, MANY = 8760, 1_000_000
MUTATED = 10_000


def main() -> None:
    """Run the bench."""
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        own = Settings(home=Path(scratch))
        try:
            rows = _rows(own)
        finally:
            stop_embedded(own)
            shutil.rmtree(own.home / "postgres", ignore_errors=True)
    publish("data", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _rows(settings: Settings) -> list[Row]:
    database = open_database(settings)
    migrate(database)
    installation = Installation(settings, database)
    windows = _following(FIRST, 10)
    with database.connect() as conn:
        create_game_tables(conn)
        for window in windows:
            write_window(conn, window, TRAJECTORIES, STEPS)
    parts: list[Callable[[], list[Row]]] = [
        lambda: _side_by_side(installation, database),
        lambda: _memory(settings, windows),
        lambda: _sparse(installation, database),
        lambda: _mutated(database),
        lambda: _many_windows(database),
    ]
    rows: list[Row] = []
    for part in parts:
        found = part()
        print(*(f"{row.name}: {row.value:.3f} {row.unit}" for row in found), sep="\n", flush=True)
        rows += found
    return rows


def _following(window: str, count: int) -> list[str]:
    windows = [window]
    while len(windows) < count:
        windows.append(next_window(windows[-1]))
    return windows


# What is read


def write_window(conn: Connection[Any], window: str, trajectories: int, steps: int) -> None:
    """A window of full rows of another model, about 25 KB each: prompts, answers, trades, markets that resolved."""
    rng = random.Random(window)
    start = window_bounds(window)[0]
    agents = [f"agent-{n}" for n in range(AGENTS)]
    there = {row[0] for row in conn.execute('SELECT id FROM "User"').fetchall()}
    users = [{"id": a, "username": a, "isAgent": True, "updatedAt": start} for a in agents if a not in there]
    copy_rows(conn, "User", users)
    markets = [f"{window}-m{n}" for n in range(20)]
    times = {"endDate": start + timedelta(hours=1), "updatedAt": start + timedelta(minutes=59), "liquidity": 1000}
    copy_rows(
        conn,
        "Market",
        [{"id": m, "question": "?", "resolved": True, "resolution": rng.random() < 0.5, **times} for m in markets],
    )
    trades: list[dict[str, Any]] = []
    rows = [_trajectory(rng, window, n, steps, markets, trades) for n in range(trajectories)]
    copy_rows(conn, "AgentTrade", trades)
    copy_rows(conn, "trajectories", rows)


def _trajectory(
    rng: random.Random, window: str, number: int, steps: int, markets: list[str], trades: list[dict[str, Any]]
) -> dict[str, Any]:
    start, agent, name = window_bounds(window)[0], f"agent-{number % AGENTS}", f"{window}-t{number}"
    written = []
    for n in range(steps):
        at = start + timedelta(seconds=30 * (10 * n) + number // AGENTS * 300 % 3000 // 60)
        kind = rng.choice(["BUY_SHARES", "BUY_SHARES", "HOLD", "INVALID_ACTION"])
        market, side = rng.choice(markets), rng.choice(["YES", "NO"])
        if kind == "BUY_SHARES":
            trades.append(
                {
                    **{"id": f"{name}-{n}", "agentUserId": agent, "marketType": "prediction", "marketId": market},
                    **{"action": "buy", "side": side.lower(), "amount": 10.0, "executedAt": at},
                    "price": round(rng.uniform(0.1, 0.9), 2),
                }
            )
        written.append(_step(rng, n, int(at.timestamp() * 1000), kind, market, side))
    end = start + timedelta(minutes=59)
    return {
        **{"id": name, "trajectoryId": name, "agentId": agent, "startTime": start, "endTime": end},
        **{"durationMs": 1, "windowId": window, "scenarioId": window, "stepsJson": json.dumps(written)},
        **dict.fromkeys(("rewardComponentsJson", "metricsJson", "metadataJson"), "{}"),
        **{"totalReward": 0.0, "episodeLength": steps, "finalStatus": "completed", "updatedAt": end},
    }


def _step(rng: random.Random, number: int, at: int, kind: str, market: str, side: str) -> dict[str, Any]:
    words = " ".join(rng.choices(_WORDS, k=250))
    return {
        **{"stepNumber": number, "timestamp": at, "reward": 0.0, "providerAccesses": []},
        "environmentState": {"agentBalance": 1000.0, "agentPnL": rng.uniform(-50, 50), "openPositions": 0},
        "llmCalls": [
            {
                **{"model": "gpt-4o-mini", "systemPrompt": "You trade. " + words[:600], "userPrompt": words[600:]},
                **{"response": f"I choose {kind} {market} {side}.", "temperature": 1.0, "maxTokens": 64},
                "purpose": "action",
            }
        ],
        "action": {
            **{"actionType": kind, "success": kind != "INVALID_ACTION"},
            "parameters": {"marketType": "prediction", "marketId": market, "side": side, "amount": 10},
        },
    }


_WORDS = [f"w{n:05d}" for n in range(5000)]


# One window, side by side


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of this process's cpu and of the clock."""

    cpu: float
    wall: float


def run_line(installation: Installation, window: str) -> None:
    """What the three assets of the data path do, without orchestration."""
    raw_trajectories.copy_window(installation, window)
    scored_trajectories.score_window(installation, window)
    training_datasets.freeze_window(installation, window)


def _run_all(installation: Installation, windows: list[str]) -> None:
    for window in windows:
        run_line(installation, window)


def _side_by_side(installation: Installation, database: Database) -> list[Row]:
    ours, plainly, least = [], [], []
    parts: dict[str, list[Spent]] = {"copy": [], "score": [], "freeze": []}
    for _ in range(REPEATS):
        _forget(database)
        plainly.append(_measured(lambda: _plainly(database)))
        least.append(_measured(lambda: _least(database)))
        spent = [
            _measured(lambda: raw_trajectories.copy_window(installation, FIRST)),
            _measured(lambda: scored_trajectories.score_window(installation, FIRST)),
            _measured(lambda: training_datasets.freeze_window(installation, FIRST)),
        ]
        for part, each in zip(parts.values(), spent, strict=True):
            part.append(each)
        ours.append(Spent(sum(each.cpu for each in spent), sum(each.wall for each in spent)))
    _compare_rewards(database)
    cpu, wall = _cpu(ours), statistics.median(each.wall for each in ours)
    return [
        Row("one window, ours, cpu", cpu, "s"),
        *(Row(f"  of which {name}", _cpu(part), "s") for name, part in parts.items()),
        Row("one window, ours, wall", wall, "s"),
        Row("one window, plain way, cpu", _cpu(plainly), "s"),
        Row("one window, plain way, wall", statistics.median(each.wall for each in plainly), "s"),
        Row("one window, COPY and msgspec alone, cpu", _cpu(least), "s"),
        at_least("plain way over ours, cpu", _cpu(plainly) / cpu, "times", 4),
        at_most("ours over COPY and msgspec alone, cpu", cpu / _cpu(least), "times", 1.8),
    ]


def _cpu(spent: list[Spent]) -> float:
    return statistics.median(each.cpu for each in spent)


def _measured(work: Callable[[], Any]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


_KEPT = (
    *("windows", "raw_trajectories", "trajectory_scores", "training_dataset_samples", "training_datasets"),
    "quarantined_trajectories",
)


def _forget(database: Database) -> None:
    with database.connect() as conn:
        conn.execute(plain.TABLES.encode())
        for table in _KEPT:
            conn.execute(f"DELETE FROM babylon_training.{table}".encode())


def _plainly(database: Database) -> None:
    with database.connect() as conn:
        plain.run(conn, FIRST, "babylon-agent")


class _Call(msgspec.Struct, gc=False, rename="camel"):
    model: str
    purpose: str
    system_prompt: str
    user_prompt: str
    response: str


class _Step(msgspec.Struct, gc=False, rename="camel"):
    timestamp: int
    llm_calls: list[_Call]
    action: Any


def _least(database: Database) -> None:
    """Rows out by COPY, the needed fields by msgspec, the same bytes compressed in by COPY: no scores, no dataset."""
    decode = msgspec.json.Decoder(list[_Step]).decode
    query = (
        'COPY (SELECT "trajectoryId", "stepsJson" FROM trajectories WHERE "windowId" = %s) TO STDOUT (FORMAT binary)'
    )
    with database.connect() as reading, database.connect() as writing:
        writing.execute("CREATE TEMP TABLE least (id text, body bytea)")
        into = "COPY least FROM STDIN (FORMAT binary)"
        with reading.cursor().copy(query, [FIRST]) as rows, writing.cursor().copy(into) as kept:
            rows.set_types(["text", "bytea"])
            kept.set_types(["text", "bytea"])
            for name, text in rows.rows():
                decode(text)
                kept.write_row((name, pack(text)))


def _compare_rewards(database: Database) -> None:
    """Both ways must have come to the same rewards, or the comparison is of different work."""
    with database.connect() as conn:
        conn.execute(plain.TABLES.encode())
        expected = plain.run(conn, FIRST, "babylon-agent")
        found = read_scores(conn, FIRST)
    rewards = dict(zip(zip(found["trajectory_id"], found["step"], strict=True), found["reward"], strict=True))
    far = [key for key, reward in expected.items() if reward is not None and not abs(rewards[key] - reward) < 1e-9]
    if len(rewards) != len(expected) or len(far) > 0.02 * len(expected):
        raise SystemExit(f"the two ways disagree about {len(far)} of {len(expected)} rewards, such as {far[:1]}")


# Memory


def _memory(settings: Settings, windows: list[str]) -> list[Row]:
    """Growth of a fresh process's peak over what it needs for an empty window, raw to dataset."""
    nothing = _following(windows[-1], 2)[-1:]
    return [
        at_most("growth of memory, 1 window", _growth(settings, [*nothing, *windows[:1]]), "MB", 60),
        at_most("growth of memory, 10 windows", _growth(settings, [*nothing, *windows]), "MB", 120),
        Row("  of which reading, 10 windows", _growth(settings, [*nothing, *windows], "copy"), "MB"),
    ]


def _growth(settings: Settings, windows: list[str], what: str = "line") -> float:
    command = [sys.executable, "-m", "benchmarks.data", "--memory", str(settings.home), what, *windows]
    with open_database(settings).connect() as conn:
        conn.execute("DELETE FROM babylon_training.windows")
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_memory(home: str, what: str, windows: list[str]) -> None:
    """Print by how many MB the peak grew after the first window."""
    settings = Settings(home=Path(home))
    installation = Installation(settings, open_database(settings))
    run: Callable[[Installation, str], Any] = raw_trajectories.copy_window if what == "copy" else run_line
    run(installation, windows[0])
    before = _peak_mb()
    for window in windows[1:]:
        run(installation, window)
    print(_peak_mb() - before)


def _peak_mb() -> float:
    """This program's peak; `ru_maxrss` would count that of the process which started it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


# Sparse windows through Dagster


def _sparse(installation: Installation, database: Database) -> list[Row]:
    import dagster as dg

    from babylon_assets.definitions import build_definitions

    windows = _following("2026-10-05T00:00", SPARSE_RUN)
    with database.connect() as conn:
        for window in windows:
            write_window(conn, window, SPARSE_TRAJECTORIES, 2)
    definitions = build_definitions(installation.settings, installation=installation)
    names = ("raw_trajectories", "scored_trajectories", "training_datasets")
    assets = [each for each in definitions.assets or () if isinstance(each, dg.AssetsDefinition)]
    chosen = [each for each in assets if each.key.path[-1] in names]
    resources = dict(definitions.resources or {})
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        spent = _measured(
            lambda: [
                dg.materialize(chosen, partition_key=window, instance=instance, resources=resources, run_config=quiet)
                for window in windows
            ]
        )
    alone = _measured(lambda: _run_all(installation, windows))
    scale = SPARSE / SPARSE_RUN
    return [
        at_most(f"{SPARSE} sparse windows, at the pace of {SPARSE_RUN}", spent.wall * scale, "s", 60),
        Row("  the same without orchestration, unchanged rows", alone.wall * scale, "s"),
    ]


# Mutated rows


def _mutated(database: Database) -> list[Row]:
    rng = random.Random(0)
    good = json.dumps([_step(rng, n, 1_790_812_800_000 + n, "HOLD", "m", "YES") for n in range(2)])
    window = "2026-11-01T00:00"
    texts = [good.encode() if n % 10 == 0 else _mutation(rng, good) for n in range(MUTATED)]
    storable = [text for text in texts if _is_storable(text)]
    start, end = window_bounds(window)
    with database.connect() as conn:
        rows = [
            {
                **{"id": f"x{n}", "trajectoryId": f"x{n}", "agentId": "agent-0", "startTime": start, "endTime": end},
                **{"durationMs": 1, "windowId": window, "stepsJson": text.decode(), "totalReward": 0.0},
                **dict.fromkeys(("rewardComponentsJson", "metricsJson", "metadataJson"), "{}"),
                **{"episodeLength": 2, "finalStatus": "completed", "updatedAt": end},
            }
            for n, text in enumerate(storable)
        ]
        copy_rows(conn, "trajectories", rows)
        found = list(source.read_window(conn, window))
    given = [SourceRow(window, True, "y", "a", None, start, end, "completed", None, None, text) for text in texts]
    decoded = [*found, *(decode_row(row) for row in given if not _is_storable(row.steps_json))]
    refused = [row for row in decoded if isinstance(row, Quarantined)]
    lost = abs(len(decoded) - MUTATED) + len(found) - len({row.trajectory_id for row in found})
    silent = sum(not (row.reason and row.place) for row in refused)
    wrong = sum(isinstance(decode_row(row), Quarantined) for row in given if row.steps_json == good.encode())
    return [
        Row("mutated rows in quarantine", len(refused), "rows"),
        at_most("mutated rows lost, doubled or crashed", lost, "rows", 0),
        at_most("quarantined rows without a reason", silent, "rows", 0),
        at_most("good rows in quarantine", wrong, "rows", 0),
    ]


def _is_storable(text: bytes) -> bool:
    try:
        return "\0" not in text.decode()
    except UnicodeDecodeError:
        return False


def _mutation(rng: random.Random, good: str) -> bytes:
    """One of the ways in which rows are broken; a few are 20 MB long."""
    at = rng.randrange(len(good))
    values = ["null", '"x"', "{}", "[]", "NaN", "1" + "0" * 400, '"\\ud800"', '"\\u0000"', "-Infinity", "true"]
    kind = rng.randrange(6)
    if kind == 0:
        return good[:at].encode()
    if kind == 1:
        return (good[:at] + rng.choice(["\0", "\ud800", '"', "}", "\\"]) + good[at:]).encode("utf-8", "surrogatepass")
    if kind == 2:
        return rng.choice([("[" * 20_000), "", "null", "{}", '"steps"', "[null]", "[[]]", "[1]"]).encode()
    if kind == 3 and rng.random() < 0.003:
        return good.replace("You trade. ", "x" * 20_000_000, 1).encode()
    steps = json.loads(good)
    place = rng.choice(["stepNumber", "timestamp", "environmentState", "llmCalls", "action"])
    steps[rng.randrange(2)][place] = "@@"
    return json.dumps(steps).replace('"@@"', rng.choice(values)).encode()


# Many windows


def _many_windows(database: Database) -> list[Row]:
    """A million rows in a year of hours; a tick looks at the last three days, a sweep at all of them."""
    with database.connect_autocommit() as conn:
        conn.execute("TRUNCATE trajectories")
        conn.execute(
            """INSERT INTO trajectories (id, "trajectoryId", "agentId", "startTime", "endTime", "durationMs",
                   "windowId", "stepsJson", "rewardComponentsJson", "metricsJson", "metadataJson", "totalReward",
                   "episodeLength", "finalStatus", "updatedAt")
               SELECT 'i' || n, 't' || n, 'agent-' || n %% 200, at, at, 1, to_char(at, 'YYYY-MM-DD"T"HH24":00"'),
                      '[]', '{}', '{}', '{}', 0, 0, 'completed', at
               FROM generate_series(1, %s) AS n,
                    LATERAL (SELECT timestamp '2026-01-01' + (n %% %s) * interval '1 hour' AS at) AS placed""",
            [MANY, MANY_WINDOWS],
        )
        conn.execute("VACUUM ANALYZE trajectories")
        newest = source.list_windows(conn)[-1].window
        since = f"2026-12-29{newest[10:]}"
        tick = _milliseconds(lambda: source.list_windows(conn, since))
        sweep = _milliseconds(lambda: source.list_windows(conn))
        query = 'SELECT "windowId", count(DISTINCT "agentId"), count(*) FROM trajectories GROUP BY 1 ORDER BY 1'
        naive = _milliseconds(lambda: conn.execute(query).fetchall())
    return [
        at_most("listing the windows of three days among a year of them", tick, "ms", 25),
        Row("  listing all of them", sweep, "ms"),
        Row("  listing all of them, the plain way", naive, "ms"),
    ]


def _milliseconds(work: Callable[[], Any]) -> float:
    return 1000 * statistics.median(_measured(work).wall for _ in range(5))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        main()
