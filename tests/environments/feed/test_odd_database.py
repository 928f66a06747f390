"""An hour of Feed in a database that is set otherwise than PostgreSQL comes: the same values are read and written."""

from __future__ import annotations

from typing import Any

from babylon_assets.cli.list_scores import score_rows
from babylon_assets.config.settings import Settings
from babylon_assets.ledger.windows import get_window
from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.resources import Installation
from tests.environments.feed.hour import WINDOW
from tests.ledger.test_odd_servers import make_odd
from tests.servers import Server

READ = "SELECT trajectory_id, content_hash, start_time FROM babylon_training.raw_trajectories ORDER BY 1"


def test_the_line_reads_and_writes_the_same_values(server: Server, feed_played: str) -> None:
    settings = Settings(environment="feed", min_agents_per_window=1, min_samples_per_window=1)

    def freeze(name: str) -> list[Any]:
        installation = Installation(settings, server.database(name))
        raw_trajectories.read(installation, WINDOW)
        scored_trajectories.score(installation, WINDOW)
        freeze_window(installation, WINDOW)
        with installation.connect() as conn:
            row = get_window(conn, WINDOW)
            assert row is not None and row.dataset_id is not None
            read, scores = conn.execute(READ).fetchall(), list(score_rows(settings, conn, WINDOW))
        server.drop(name)
        return [row.status, row.fingerprint, row.dataset_id, row.reward_mean, read, scores]

    plain, odd = server.create(feed_played), server.create(feed_played)
    make_odd(server, odd)
    assert freeze(odd) == freeze(plain)
