"""PostgreSQL is stopped while Dagster makes or executes a run: a sentence for a person, and nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import TransientError
from babylon_assets.ledger import embedded_postgres
from babylon_assets.ledger.database import Database, open_database
from babylon_assets.ledger.sqlstates import named_error
from babylon_assets.orchestration.runtime import UNFINISHED, Line, fail_orphaned_runs, open_instance
from babylon_assets.orchestration.runtime.ownership import OWNER_TAG
from babylon_assets.orchestration.runtime.tags import PROCESS_TAG
from tests.orchestration.hanging import WINDOW, definitions
from tests.servers import passable_folder

OPEN = [*UNFINISHED, dg.DagsterRunStatus.NOT_STARTED]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a server of its own."""
    folder = passable_folder("babylon-home-")
    yield folder
    embedded_postgres.stop(folder / "postgres")
    shutil.rmtree(folder)


@pytest.fixture
def stop_before() -> Iterator[Callable[[str, Path], list[str]]]:
    """Have the server of a home stopped before the first statement that has this in it; gives what it was."""
    listening: list[Any] = []

    def arrange(part: str, home: Path) -> list[str]:
        stopped: list[str] = []

        def look(conn: Any, cursor: Any, text: str, *_: Any) -> None:
            if not stopped and part in text:
                stopped.append(text)
                embedded_postgres.stop(home / "postgres")

        event.listen(Engine, "before_cursor_execute", look)
        listening.append(look)
        return stopped

    yield arrange
    for look in listening:
        event.remove(Engine, "before_cursor_execute", look)


@pytest.mark.parametrize(
    ("moment", "raised"),
    [
        ("INSERT INTO public.runs ", "OperationalError"),  # the run is made
        ("INSERT INTO public.event_logs", "DatabaseUnavailable"),  # it is made, and does not begin; Dagster prints this
        ("UPDATE public.concurrency_slots", "DagsterPostgresException"),  # it asks for, or has, its place in the pool
    ],
)
def test_the_database_lost_while_a_run_is_made(
    home: Path,
    stop_before: Callable[[str, Path], list[str]],
    moment: str,
    raised: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda **_: 0.01)
    settings = Settings(home=home)
    with open_instance(settings, open_database(settings)) as instance:
        line = Line(definitions(hang=False), instance)
        stopped = stop_before(moment, home)
        with pytest.raises(Exception) as lost:
            line.materialize(WINDOW)
        assert stopped
        assert type(lost.value).__name__ == raised
        assert isinstance(named_error(lost.value), TransientError), lost.value
        assert "INSERT INTO" not in capfd.readouterr().err
        open_database(settings)
        line.materialize(WINDOW)  # the same process goes on: no place in the pool is held by the run that was lost
        assert instance.get_runs(filters=dg.RunsFilter(statuses=OPEN)) == []
        assert len(instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))) > 0


def test_a_run_that_was_made_and_never_begun_is_failed(database: Database, tmp_path: Path) -> None:
    with open_instance(Settings(home=tmp_path, database_url=database.url), database) as instance:
        job = definitions(hang=False).resolve_job_def("train_window")
        gone = instance.create_run_for_job(job, tags={OWNER_TAG: "gone:elsewhere", PROCESS_TAG: "elsewhere:1:1"})
        launched = instance.create_run_for_job(job)  # about to be launched by somebody
        assert fail_orphaned_runs(instance) == [gone.run_id]
        [waiting] = instance.get_runs(filters=dg.RunsFilter(statuses=OPEN))
        assert waiting.run_id == launched.run_id
