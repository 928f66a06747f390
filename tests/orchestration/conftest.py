"""A game, an instance that lives in PostgreSQL, and the sensors over both, as the daemon ticks them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import get_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import open_instance

FIRST, SECOND, THIRD, FOURTH = HOURLY.closed(datetime.now(UTC), 5)[:4]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Loop:
    """A game, an instance, and the sensors over both; a tick carries its cursor on, as the daemon does."""

    def __init__(self, settings: Settings, database: Database, instance: dg.DagsterInstance) -> None:
        self.settings, self.database, self.instance = settings, database, instance
        self.installation = Installation(settings, database)
        self.definitions = build_definitions(settings, installation=self.installation)
        self.cursors: dict[str, str | None] = {}

    def tick(self, name: str) -> dg.SensorResult | dg.SkipReason:
        sensor = next(each for each in self.definitions.sensors or () if each.name == name)
        assert isinstance(sensor, dg.SensorDefinition)
        context = dg.build_sensor_context(self.instance, cursor=self.cursors.get(name))
        result = sensor(context)
        if isinstance(result, dg.SensorResult):
            self.cursors[name] = result.cursor
        return result  # type: ignore[return-value]

    def asked(self, name: str = "closed_windows") -> dg.RunRequest:
        result = self.tick(name)
        assert isinstance(result, dg.SensorResult)
        [request] = result.run_requests or []
        return request

    def said(self, name: str = "closed_windows") -> str:
        result = self.tick(name)
        reason = result if isinstance(result, dg.SkipReason) else result.skip_reason
        assert not isinstance(result, dg.SensorResult) or not result.run_requests
        return str(reason.skip_message if isinstance(reason, dg.SkipReason) else reason)

    def run(self, request: dg.RunRequest, job: str = "train_window") -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
            run_config=QUIET,
        )

    def play(self, window: str, agents: int = 4, text: str = "[]") -> None:
        """Rows that can be scored and not trained on, which is enough for a loop that does not train."""
        start, end = HOURLY.bounds(window)
        with self.database.connect() as conn:
            there = {row[0] for row in conn.execute('SELECT id FROM public."User"').fetchall()}
            names = [f"agent-{n}" for n in range(agents)]
            users = [{"id": a, "username": a, "isAgent": True, "updatedAt": start} for a in names if a not in there]
            copy_rows(conn, "User", users)
            copy_rows(conn, "trajectories", [row(window, name, start, end, text) for name in names])

    def status(self, window: str) -> str | None:
        with self.database.connect() as conn:
            found = get_window(conn, window)
        return None if found is None else found.status

    def execute(self, statement: str, *parameters: Any) -> None:
        with self.database.connect() as conn:
            conn.execute(statement.encode(), parameters)


def row(window: str, agent: str, start: datetime, end: datetime, text: str) -> dict[str, Any]:
    name = f"{window}-{agent}"
    return {
        **{"id": name, "trajectoryId": name, "agentId": agent, "startTime": start},
        **{
            "endTime": end - timedelta(minutes=1),
            "durationMs": 1,
            "windowId": window,
            "stepsJson": text,
            "totalReward": 0.0,
            "episodeLength": 0,
        },
        **dict.fromkeys(("rewardComponentsJson", "metricsJson", "metadataJson"), "{}"),
        **{"finalStatus": "completed", "updatedAt": end},
    }


@pytest.fixture
def loop(tmp_path: Path, game_database: Database) -> Iterator[Loop]:
    settings = Settings(
        home=tmp_path, database_url=game_database.url, train_rl_local=False, window_grace_minutes=5, gate=False
    )
    with open_instance(settings, game_database) as instance:
        yield Loop(settings, game_database, instance)


def broken(*_: Any) -> str:
    raise ZeroDivisionError("a bug")
