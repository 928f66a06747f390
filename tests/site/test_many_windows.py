"""A page reads as many rows of a ledger of 1,000 windows as of one of 200: counted in the database, by no clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from babylon_assets.domain.site_links import SITE, link_agent, link_checkpoint, link_comparison, link_samples
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.promotions import promote
from babylon_assets.site.page_shell import Site
from tests.ledger.values import CHAIN, checkpoint, root
from tests.servers import Server
from tests.site.conftest import client_of
from tests.site.filled_ledger import add_window

FEW, MANY = 200, 1000
NEWEST = "2026-11-05T14:00"
#: Windows like the newest one, before it: each with its scores, its samples, its checkpoint and its promotion.
COPIES = """
CREATE TEMP TABLE copied AS SELECT n, to_char(timestamp '2026-11-05 14:00' - n * interval '1 hour',
    'YYYY-MM-DD"T"HH24:00') AS hour FROM generate_series(1, %(last)s - 1) AS n;
INSERT INTO babylon_training.training_datasets (id, window_id, samples, trainable_tokens, counts, body)
SELECT id || '-' || n, hour, samples, trainable_tokens, counts, body
FROM babylon_training.training_datasets, copied WHERE window_id = %(newest)s;
INSERT INTO babylon_training.windows (window_id, status, trajectories, reward_mean, dataset_id)
SELECT hour, status, trajectories, reward_mean, dataset_id || '-' || n
FROM babylon_training.windows, copied WHERE window_id = %(newest)s;
INSERT INTO babylon_training.training_dataset_trajectories (dataset_id, trajectory_id, agent_id, chat_sha256, steps,
    calls, group_keys, policies, rewards, advantages, trains_as, skip_reasons, tokens)
SELECT dataset_id || '-' || n, trajectory_id || '-' || n, agent_id, chat_sha256, steps, calls, ARRAY[hour || '/1'],
    policies, rewards, advantages, trains_as, skip_reasons, tokens
FROM babylon_training.training_dataset_trajectories, copied;
INSERT INTO babylon_training.trajectory_scores (window_id, trajectory_id, agent_id, scorer, scorer_version, score,
    final, steps, step_scores)
SELECT hour, trajectory_id || '-' || n, agent_id, scorer, scorer_version, score, final, steps, step_scores
FROM babylon_training.trajectory_scores, copied WHERE window_id = %(newest)s;
INSERT INTO babylon_training.model_checkpoints (id, chain, step, parent_id, window_id, dataset_id, backend, base_model,
    settings, seed, versions, metrics, path, weights_sha256, created_at)
SELECT 'c' || n, chain, step + n, CASE n WHEN 1 THEN id ELSE 'c' || (n - 1) END, hour, dataset_id || '-' || n, backend,
    base_model, settings, seed, versions, metrics, path, weights_sha256, created_at + n * interval '1 minute'
FROM babylon_training.model_checkpoints, copied WHERE step = 1;
INSERT INTO babylon_training.promotions (chain, kind, from_id, to_id, promoted_by, why)
SELECT chain, kind, to_id, 'c' || n, promoted_by, why FROM babylon_training.promotions, copied ORDER BY n;"""
_READ = """
SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_xact_user_tables
WHERE schemaname = 'babylon_training'"""
PAGES = {
    "the register": f"{SITE}/",
    "its second page": f"{SITE}/?page=1",
    "one state of it": f"{SITE}/?state=served+before",
    "a checkpoint": link_checkpoint(f"{CHAIN}@7"),
    "samples": link_samples(),
    "a window": link_samples(window=NEWEST),
    "samples of an agent": link_samples(agent="agent-1"),
    "samples of nobody": link_samples(agent="nobody"),
    "a reward that none has": link_samples(least=100.0),
    "a reward that an agent has not": link_samples(agent="agent-1", least=100.0),
    "a text that is nowhere": link_samples(text="nowhere"),
    "agents": f"{SITE}/agents",
    "an agent": link_agent("agent-1"),
    "compare": link_comparison(f"{CHAIN}@7", f"{CHAIN}@8"),
    "the playground": f"{SITE}/playground",
    "a recorded prompt": f"{SITE}/playground?agent=agent-1&step=0",
    "a recorded prompt of a window": f"{SITE}/playground?agent=agent-1&step=0&window={NEWEST}",
}


@pytest.fixture(scope="module")
def ledgers(server: Server, migrated: str) -> Iterator[list[Database]]:
    """A ledger of few windows and one of many."""
    names = [server.create(migrated) for _ in (FEW, MANY)]
    for name, count in zip(names, (FEW, MANY), strict=True):
        with server.database(name).connect() as conn:
            _fill(conn, count)
        with server.database(name).connect_autocommit() as conn:
            conn.execute("VACUUM ANALYZE")
    yield [server.database(name) for name in names]
    for name in names:
        server.drop(name)


def _fill(conn: psycopg.Connection[Any], count: int) -> None:
    frozen = add_window(conn, NEWEST)
    begin = root()
    first = checkpoint(1, NEWEST, frozen, parent_id=begin.id, metrics={f"number {n}": n for n in range(60)})
    for made in (begin, first):
        insert_checkpoint(conn, made)
    promote(conn, first, by="gate", why="it is better")
    for statement in COPIES.split(";"):
        if statement.strip():
            conn.execute(statement.encode(), {"last": count, "newest": NEWEST} if "%(" in statement else None)


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each connection of the site has read of our tables."""
    counts: list[int] = []
    connect = Site.connect

    @contextmanager
    def counting(site: Site) -> Iterator[Any]:
        with connect(site) as conn:
            yield conn
            counts.append(conn.execute(_READ).fetchall()[0][0])

    monkeypatch.setattr(Site, "connect", counting)
    # The bounds of a search are met in both ledgers.
    monkeypatch.setattr("babylon_assets.site.sample_pages.MOST_LOOKED_AT", 300)
    monkeypatch.setattr("babylon_assets.site.sample_pages.MOST_COMPARED", 120)
    monkeypatch.setattr("babylon_assets.site.agent_pages.LOOKED_AT", 8)  # of so few rows the planner would read all
    return counts


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_no_more_of_many_windows_than_of_few(
    ledgers: list[Database], rows_read: list[int], page: str
) -> None:
    read = []
    for ledger in ledgers:
        reply = client_of(ledger).get(PAGES[page], follow_redirects=False)
        assert reply.status_code in (200, 303), reply.text
        read.append(sum(rows_read))
        rows_read.clear()
    counted = MANY if PAGES[page].startswith(f"{SITE}/?") or PAGES[page] == f"{SITE}/" else 0  # each state is counted
    counted *= 3 if "state=" in PAGES[page] else 1  # and found by what was decided and promoted, by some plans
    assert read[1] <= 1.25 * read[0] + 20 + counted
