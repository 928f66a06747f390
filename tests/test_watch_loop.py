"""What `babylon up` says while the loop works, from a real ledger, and when it writes the report of the site."""

from __future__ import annotations

from pathlib import Path

from babylon_assets.cli.watch_loop import REPORT_SECONDS, LoopWatch
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.training_jobs import advance_job, start_job
from babylon_assets.ledger.verdicts import StoredVerdict, store_verdict
from babylon_assets.ledger.windows import upsert_window
from tests.ledger.values import CHAIN, LATER, LATEST, WINDOW, checkpoint, dataset, root, sample


def test_what_the_loop_does_is_said_once_in_its_order(database: Database, tmp_path: Path) -> None:
    lines, reports = list[str](), list[str]()
    watch = LoopWatch(Settings(home=tmp_path), database, lines.append, lambda: reports.append("written"))
    kept = dataset(sample(0))
    base, first, second = root(), checkpoint(1, WINDOW, kept.id), checkpoint(2, LATER, kept.id)
    with database.connect() as conn:
        save_dataset(conn, kept)
        checkpoints.ensure_root(conn, base)
        ended = start_job(conn, window="2026-10-01T00:00", chain=CHAIN)
        advance_job(conn, ended.id, "failed", reason="of before")
    now = watch._written
    watch.look(now)
    assert (lines, reports) == ([], [])
    with database.connect() as conn:
        job = start_job(conn, window=WINDOW, chain=CHAIN)
    watch.look(now)
    assert lines == [f"training {WINDOW}"]
    with database.connect() as conn:
        conn.execute(
            "UPDATE babylon_training.training_jobs SET created_at = now() - interval '125 seconds' WHERE id = %s",
            [job.id],
        )
    watch.look(now)
    watch.look(now)
    assert lines[1:] == [f"still training {WINDOW}: 2 min"]
    with database.connect() as conn:
        for made in (first, second):
            checkpoints.insert_checkpoint(conn, made)
        advance_job(conn, job.id, "trained", checkpoint_id=first.id)
    with database.connect() as conn:
        promotions.promote(conn, first, by="gate", why="better")
    with database.connect() as conn:
        store_verdict(
            conn,
            StoredVerdict(
                checkpoint_id=second.id, chain=CHAIN, champion_id=None, passed=False, why="worse", verdict={}
            ),
        )
    with database.connect() as conn:
        upsert_window(conn, LATEST, status="thin", reason="2 agents\n and \x1b[31mno more")
    watch.look(now)
    watch.look(now)
    assert lines[2:] == [
        f"{WINDOW} is trained: {CHAIN}@1",
        f"{CHAIN}@1 is promoted: better",
        f"the gate refused {CHAIN}@2: worse",
        f"{LATEST} is thin: 2 agents  and �[31mno more",
    ]
    assert reports == []
    watch.look(now + REPORT_SECONDS)
    watch.look(now + 3 * REPORT_SECONDS)
    assert reports == ["written"]


def test_a_report_that_is_there_is_written_anew_only_when_something_happened(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("it")
    said, reports = list[str](), list[str]()

    def refuse() -> str:
        reports.append("tried")
        return "no report was written"

    watch = LoopWatch(Settings(home=tmp_path), database, said.append, refuse)
    later = watch._written + REPORT_SECONDS
    watch.look(later)
    assert reports == []
    with database.connect() as conn:
        start_job(conn, window=WINDOW, chain=CHAIN)
    watch.look(later)
    assert (said, reports) == ([f"training {WINDOW}", "no report was written"], ["tried"])


def test_a_database_that_is_gone_ends_no_watch(database: Database, tmp_path: Path) -> None:
    class Gone:
        def connect(self) -> Database:
            raise DatabaseUnavailable("it is gone")

    said = list[str]()
    watch = LoopWatch(Settings(home=tmp_path), Gone(), said.append, lambda: "written")  # type: ignore[arg-type]
    watch.look(watch._written + REPORT_SECONDS)
    assert said == []
