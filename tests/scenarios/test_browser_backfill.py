"""A person launches a backfill of every hour in the browser, and it ends as it should, killed in the middle or not;
one that failed goes on from its failure when the person says so.

Among the hours are one whose rewards were turned around and some with too few agents.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger.database import Database, embedded_data, migrate, open_database, stop_embedded
from babylon_assets.serving.engine.engine import Engine
from tests.browser import Browser, chromium
from tests.scenarios.conftest import Environment, babylon, free_port, start
from tests.scenarios.processes import worker_of
from tests.servers import passable_folder
from tools.screenshots import launch, newest_backfill, open_dialog

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium"),
]
HARM = {
    "SCORERS": "tests.scenarios.scorers:turned,tests.scenarios.scorers:fragile",
    "REWARD_WEIGHTS": "outcome=1.0,turned=1.0,fragile=1.0",
}
DATA = ("raw_trajectories", "scored_trajectories", "training_datasets")
ASSETS = (*DATA, "model_checkpoints", "checkpoint_evaluations", "promoted_model")


@dataclass(frozen=True)
class Story:
    """Hours, oldest first, and which of them are what."""

    windows: list[str]
    thin: list[str]
    poisoned: str
    broken: str

    @classmethod
    def of(cls, count: int) -> Story:
        windows = HOURLY.closed(datetime.now(UTC), count)
        places = (5, 20, 33) if count > 33 else (1,)
        return cls(windows, [windows[place] for place in places], windows[count // 2 + 1], windows[2])

    @property
    def trained(self) -> list[str]:
        return [window for window in self.windows if window not in self.thin]


@dataclass
class Served:
    """A home whose UI is up, in which nothing was read yet."""

    story: Story
    environment: Environment
    process: subprocess.Popen[str]
    database: Database
    url: str
    mended: Path

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.connect() as conn:
            return conn.execute(query.encode()).fetchall()

    def dagster(self, query: str) -> list[tuple[Any, ...]]:
        folder = embedded_data(load_settings(self.environment, env_file=None))
        with psycopg.connect(f"host={folder} user=postgres dbname=dagster") as conn:
            return conn.execute(query.encode()).fetchall()

    def wait(self, condition: Callable[[], Any], what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
            time.sleep(0.05)
        return found


@pytest.fixture
def serve(
    environment_of: Callable[..., Environment], taught_base: Path, early_in_the_hour: None
) -> Iterator[Callable[[int], Served]]:
    home = passable_folder("babylon-backfill-")
    running: list[subprocess.Popen[str]] = []

    def make(count: int) -> Served:
        story = Story.of(count)
        ports = {"DAGSTER_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
        places = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "WINDOWS_FROM": story.windows[0]}
        small = {"AUTOMATION": "false", "EVALUATION_SEEDS": "8", "MAX_KL": "100", "MAX_POLICY_LAG": "100"}
        played = environment_of(home, **ports, **places, **small)
        database = play(load_settings(played, env_file=None), taught_base, story)
        mended = home / "mended"
        told = {"POISONED_WINDOW": story.poisoned, "BROKEN_WINDOW": story.broken, "MENDED": str(mended)}
        environment = {**played, **HARM, **told}
        running.append(start(environment, "up"))
        assert running[-1].stdout is not None
        assert any("Dagster UI" in line for line in running[-1].stdout)
        return Served(story, environment, running[-1], database, f"http://127.0.0.1:{ports['DAGSTER_PORT']}", mended)

    yield make
    for process in running:
        with process:
            process.send_signal(signal.SIGINT)
    stop_embedded(Settings(home=home))
    shutil.rmtree(home)


def play(settings: Settings, base: Path, story: Story) -> Database:
    """Every hour, with two agents only in the thin ones."""
    database = open_database(settings)
    migrate(database)
    engine = Engine(base, "babylon-agent@0")
    with database.connect() as conn:
        create_game_tables(conn)
        for window in story.windows:
            play_window(settings, conn, window, engine)
        few = 'SELECT id FROM public."trajectories" WHERE "windowId" = %s ORDER BY "agentId" OFFSET 2'
        for window in story.thin:
            conn.execute(f'DELETE FROM public."trajectories" WHERE id IN ({few})'.encode(), [window])
    return database


@pytest.mark.soak
@pytest.mark.parametrize(("count", "killed"), [(6, False), (48, True)])
def test_a_backfill_ends_with_every_hour_done_once(
    serve: Callable[[int], Served], count: int, killed: bool, tmp_path: Path
) -> None:
    served = serve(count)
    served.mended.touch()
    begun = time.monotonic()
    with Browser(1400, 800) as browser:
        open_dialog(browser, served.url)
        browser.wait_for(f"{count} partitions")
        launch(browser)
        if killed:
            kill_the_run_while_it_trains(served, count // 3)
        page = newest_backfill(browser, served.url)
        [(state,)] = served.wait(lambda: served.dagster(BACKFILLS), "the end of the backfill", 300 + 10 * count)
        seconds = time.monotonic() - begun
        browser.open(page, "promoted_model")
        browser.wait_for("100% completed")
        browser.picture(tmp_path / "backfill.png")
        for asset in ASSETS:
            browser.open(f"{served.url}/assets/{asset}?view=partitions", f"Materialized ({count})")
    runs = Counter(status for (status,) in served.dagster(RUNS))
    assert runs["FAILURE"] == int(killed)
    again = times(served, "model_checkpoints") - Counter(served.story.windows)
    assert again.total() <= int(killed)  # that of the hour that was killed after it was told
    if killed:  # it takes long enough to say how far it is
        said = "SELECT count(*) FROM event_logs WHERE event LIKE '% windows, 0 failed, about %left%'"
        assert served.dagster(said) != [(0,)]
    every_hour_is_trained_once(served)
    every_hour_was_read_in_one_run(served)
    it_trained_in_order(served)
    the_poisoned_hour_is_rejected(served)
    nothing_is_repeated(served)
    sys.stdout.write(f"{count} windows: {state} after {seconds:.0f} s, {dict(runs)}\n")


@pytest.mark.soak
def test_what_failed_goes_on_from_its_failure(serve: Callable[[int], Served]) -> None:
    """First the run that failed, from its page; then the backfill that it was a part of, from its own."""
    served = serve(6)
    story = served.story
    others = [window for window in story.windows if window != story.broken]
    with Browser(1400, 800) as browser:
        open_dialog(browser, served.url)
        browser.wait_for("6 partitions")
        launch(browser)
        served.wait(lambda: served.dagster(BACKFILLS) == [("COMPLETED_FAILED",)], "the end of the backfill", 300)
        assert times(served, "raw_trajectories") == Counter(story.windows)
        assert times(served, "training_datasets") == Counter(others)
        assert times(served, "model_checkpoints") == Counter(window for window in others if window < story.broken)
        served.mended.touch()
        continue_the_run(browser, served)
        assert times(served, "raw_trajectories") == Counter([*story.windows, story.broken])
        assert times(served, "training_datasets") == Counter(story.windows)
        continue_the_backfill(browser, served)
    for asset in ("model_checkpoints", "checkpoint_evaluations", "promoted_model"):
        assert times(served, asset) == Counter(story.windows)
    assert times(served, "training_datasets") - Counter(story.windows) == Counter([story.broken])
    every_hour_is_trained_once(served)
    it_trained_in_order(served)
    the_poisoned_hour_is_rejected(served)
    nothing_is_repeated(served)


def continue_the_run(browser: Browser, served: Served) -> None:
    [(failed,)] = served.dagster("SELECT run_id FROM runs WHERE status = 'FAILURE'")
    browser.open(f"{served.url}/runs/{failed}", "a table of prices is missing; correct it, or take it out of SCORERS")
    menu = "[...document.querySelectorAll('button')].find(e => e.innerText.trim() === 'Re-execute all (*)').nextSibling"
    browser.run(f"{menu}.click()")
    browser.wait_for("From failure")
    browser.click("From failure")
    browser.wait_for("Re-execution within backfill")
    browser.click("Confirm")
    served.wait(lambda: served.dagster(f"{RUNS} WHERE status = 'SUCCESS'") == [("SUCCESS",)] * 2, "the run", 120)


def continue_the_backfill(browser: Browser, served: Served) -> None:
    browser.open(newest_backfill(browser, served.url), "promoted_model")
    browser.run("document.querySelector('button[class*=iconColor]').click()")
    browser.wait_for("Re-execute from failure")
    browser.click("Re-execute from failure")
    served.wait(lambda: ("COMPLETED_SUCCESS",) in served.dagster(BACKFILLS), "the second backfill", 300)


BACKFILLS = "SELECT status FROM bulk_actions WHERE status LIKE 'COMPLETED%'"
RUNS = "SELECT status FROM runs"
CHECKPOINTS = "SELECT count(*) FROM babylon_training.model_checkpoints WHERE step > 0"


def kill_the_run_while_it_trains(served: Served, after: int) -> None:
    served.wait(lambda: served.ask(CHECKPOINTS)[0][0] >= after, f"{after} checkpoints", 300)
    pid = worker_of(served.process.pid)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert served.ask(CHECKPOINTS)[0][0] < len(served.story.trained)


def every_hour_is_trained_once(served: Served) -> None:
    story = served.story
    states = dict(served.ask("SELECT window_id, status FROM babylon_training.windows"))
    assert states == {window: "thin" if window in story.thin else "trained" for window in story.windows}
    made = served.ask("SELECT window_id FROM babylon_training.model_checkpoints WHERE step > 0 ORDER BY step")
    assert [window for (window,) in made] == story.trained
    jobs = served.ask("SELECT window_id, state FROM babylon_training.training_jobs ORDER BY 1")
    assert [window for window, state in jobs if state == "trained"] == story.trained
    assert {state for _, state in jobs} <= {"trained", "failed"}


def every_hour_was_read_in_one_run(served: Served) -> None:
    read = served.dagster(materialized("raw_trajectories"))
    assert sorted(window for window, _, _ in read) == served.story.windows
    assert len({run for _, run, _ in read}) == 1


def times(served: Served, asset: str) -> Counter[str]:
    """How often each hour of an asset was materialized."""
    return Counter(window for window, _, _ in served.dagster(materialized(asset)))


def materialized(asset: str) -> str:
    """Partition, run and time of every materialization, in the order in which they were written."""
    return (
        "SELECT partition, run_id, timestamp AT TIME ZONE 'UTC' FROM event_logs "
        f"WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key = '[\"{asset}\"]' ORDER BY id"
    )


def it_trained_in_order(served: Served) -> None:
    """Each hour is in the UI as soon as it is trained: before the next one's checkpoint is made."""
    first: dict[str, datetime] = {}
    for window, _, at in served.dagster(materialized("model_checkpoints")):
        first.setdefault(window, at)
    assert list(first) == served.story.windows
    made = dict(served.ask("SELECT window_id, created_at FROM babylon_training.model_checkpoints WHERE step > 0"))
    later = dict(zip(served.story.windows, served.story.windows[1:], strict=False))
    late = [window for window, after in later.items() if after in made and first[window] > made[after]]
    assert len(late) <= 1  # that of the hour that was killed after its checkpoint and before it was told


def the_poisoned_hour_is_rejected(served: Served) -> None:
    poisoned = served.story.poisoned
    rows = served.ask("SELECT window_id, id, parent_id, rejected FROM babylon_training.model_checkpoints")
    [(bad, why)] = [(made, why) for window, made, _, why in rows if window == poisoned]
    assert "they were turned around" in why
    assert bad not in {parent for _, _, parent, _ in rows}
    assert bad not in {made for (made,) in served.ask("SELECT to_id FROM babylon_training.promotions")}
    assert served.ask("SELECT count(*) FROM babylon_training.promotions") != [(0,)]


def nothing_is_repeated(served: Served) -> None:
    windows = served.story.windows
    before = served.ask("SELECT count(*) FROM babylon_training.training_jobs"), served.dagster(RUNS)
    told = json.loads(babylon(served.environment, "backfill", windows[0], windows[-1], "--json"))
    assert (told["read"], told["trained"], told["runs"], told["error"]) == (0, 0, [], None)
    assert (served.ask("SELECT count(*) FROM babylon_training.training_jobs"), served.dagster(RUNS)) == before
