"""`babylon up` alone keeps the loop going after an outage, and what a person then sees in a real browser.

One home for all of it: that of the demo, whose game went on for some hours while nothing of ours ran.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.database import Database, open_database, stop_embedded
from babylon_assets.ledger.windows import WindowRow, get_window
from babylon_assets.serving.engine.engine import Engine
from babylon_assets.serving.policy_registry import promoted_checkpoint
from tests.browser import Browser, chromium
from tests.scenarios.conftest import Environment, Played, babylon_here, free_port, start
from tests.servers import passable_folder

pytestmark = pytest.mark.slow
no_chromium = pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium")
ASSETS = ("raw_trajectories", "scored_trajectories", "training_datasets", "model_checkpoints")


@dataclass(frozen=True)
class Up:
    """A home in which `babylon up` runs.

    Attributes:
        played: the hours of the demo, oldest first.
        away: those that were played while nothing ran, oldest first, with an empty hour among them.
    """

    process: subprocess.Popen[str]
    url: str
    environment: Environment
    database: Database
    played: list[str]
    away: list[str]

    @property
    def windows(self) -> list[str]:
        return self.played + self.away

    def partition(self, asset: str, window: str) -> str:
        return f"{self.url}/assets/{asset}?view=partitions&partition={quote(window)}"


@pytest.fixture(scope="module")
def up(environment_of: Callable[..., Environment], played_demo: Played, taught_base: Path) -> Iterator[Up]:
    home = passable_folder("babylon-up-")
    port = free_port()
    environment = environment_of(home, DAGSTER_PORT=str(port))
    try:
        played_demo.copy_to(home)
        settings = load_settings(environment, env_file=None)
        database = open_database(settings)
        away = play_on(settings, database, taught_base, played_demo.windows[-1])
        with start(environment, "up") as process:
            assert process.stdout is not None
            printed = list(until(lambda line: str(port) in line, process.stdout))
            assert str(port) in "".join(printed[-1:]), f"`up` ended without its port:\n{''.join(printed)}"
            yield Up(process, f"http://127.0.0.1:{port}", environment, database, played_demo.windows, away)
            process.send_signal(signal.SIGINT)
    finally:
        stop_embedded(Settings(home=home))
        shutil.rmtree(home)


def until(is_last: Callable[[str], bool], lines: Iterable[str]) -> Iterator[str]:
    """The lines up to the first that is the last one, or all of them."""
    for line in lines:
        yield line
        if is_last(line):
            return


def play_on(settings: Settings, database: Database, base: Path, last: str) -> list[str]:
    """Play the two hours after the last one and, after an empty one, a third, with the live policy; gives them."""
    first = HOURLY.next(last)
    second = HOURLY.next(first)
    hours = [first, second, HOURLY.next(HOURLY.next(second))]
    with database.connect() as conn:
        made = promoted_checkpoint(conn, settings.model_name)
        assert made is not None
        engine = Engine(base)
        engine.activate(Path(made.path), f"babylon-agent@{made.step}")
        for hour in hours:
            play_window(settings, conn, hour, engine)
    return hours


@pytest.fixture(scope="module")
def served(up: Up) -> Up:
    """The home once every hour is trained, whichever test comes first."""
    wait_until_trained(up)
    return up


def wait_until_trained(up: Up, seconds: float = 480) -> None:
    deadline = time.monotonic() + seconds
    states: list[str | None] = []
    rows: list[WindowRow | None] = []
    while states != ["trained"] * len(up.away):
        assert up.process.poll() is None
        assert time.monotonic() < deadline and "failed" not in states, rows
        time.sleep(0.5)
        with up.database.connect() as conn:
            rows = [get_window(conn, window) for window in up.away]
        states = [row.status if row else None for row in rows]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def test_after_an_outage_every_window_is_trained_in_order(served: Up) -> None:
    with served.database.connect() as conn:
        line = checkpoints.chain(conn, "babylon-agent")
    assert [made.window_id for made in line] == [None, *served.windows]
    assert len({made.dagster_run_id for made in line[-3:]}) == 2


@pytest.mark.browser
@no_chromium
def test_the_lineage_shows_the_line(served: Up, browser: Browser, tmp_path: Path) -> None:
    browser.resize(3000, 950)  # so that six assets are drawn with their checks
    browser.open(f"{served.url}/locations/babylon_assets/asset-groups/babylon/lineage", ASSETS[-1])
    browser.wait_for("Passed")
    assert [asset for asset in ASSETS if asset not in browser.text()] == []
    assert browser.picture(tmp_path / "lineage.png").stat().st_size > 20_000
    browser.resize(1500, 950)


@pytest.mark.browser
@no_chromium
def test_the_partitions_of_the_demo_are_there(served: Up, browser: Browser) -> None:
    browser.open(f"{served.url}/assets/model_checkpoints?view=partitions", f"Materialized ({len(served.windows)})")
    assert [window for window in served.windows if window not in browser.text()] == []


@pytest.mark.browser
@no_chromium
def test_a_materialization_shows_its_numbers_and_its_picture(served: Up, browser: Browser) -> None:
    browser.open(served.partition("model_checkpoints", served.windows[-1]), "learning_curve")
    shown = browser.text()
    assert [name for name in ("trained_tokens", "loss", "entropy", "checkpoint", "parent") if name not in shown] == []
    linked = "[...document.querySelectorAll('a')].some(link => link.href.includes('training_datasets?view=partitions'))"
    browser.wait_until(linked)
    browser.click("[Show Markdown]", row="learning_curve")
    inline = "[...document.querySelectorAll('img')].filter(image => image.src.startsWith('data:image/'))"
    browser.wait_until(f"{inline}.some(image => image.naturalWidth > 500)")


@pytest.mark.browser
@no_chromium
def test_a_histogram_is_drawn_in_place(served: Up, browser: Browser, tmp_path: Path) -> None:
    browser.open(served.partition("training_datasets", served.windows[-1]), "effective_samples")
    assert "best_and_worst" in browser.text()
    table = "document.querySelector('[class*=EventMetadataScrollContainer]')"
    assert browser.run(f"{table}.scrollWidth <= {table}.clientWidth"), "the page cuts the texts of its table"
    browser.click("[Show Markdown]", row="rewards")
    inline = "[...document.querySelectorAll('img')].filter(image => image.src.startsWith('data:image/svg'))"
    browser.wait_until(f"{inline}.some(image => image.naturalWidth > 500)")
    browser.picture(tmp_path / "histogram.png")


@pytest.mark.browser
@no_chromium
def test_every_check_shows_its_windows(served: Up, browser: Browser, tmp_path: Path) -> None:
    browser.open(f"{served.url}/assets/training_datasets?view=checks", "no_hindsight")
    assert [name for name in ("ids_stable", "has_trainable_tokens") if name not in browser.text()] == []
    browser.picture(tmp_path / "checks.png")


@pytest.mark.browser
@no_chromium
def test_the_description_teaches(served: Up, browser: Browser) -> None:
    browser.open(f"{served.url}/assets/training_datasets", "Description")
    browser.wait_for("is the samples of one decision point")
    assert "team:babylon" in browser.text() or "babylon" in browser.text().partition("Owners")[2]


@pytest.mark.browser
@no_chromium
def test_the_demos_runs_are_listed(served: Up, browser: Browser) -> None:
    browser.open(f"{served.url}/runs", "train_window")
    browser.wait_for(served.windows[0])
    assert browser.text().count("Success") >= 3


def materialized(served: Up, browser: Browser) -> int:
    """How often the first window's dataset was made; a changed window is read again by a sensor."""
    browser.open(served.partition("training_datasets", served.windows[0]), "dataset_id")
    found = re.search(r"View all historical events \((\d+)\)", browser.text())
    return int(found[1]) if found else 1


@pytest.mark.browser
@no_chromium
def test_a_partition_materializes_by_hand(served: Up, browser: Browser) -> None:
    before = materialized(served, browser)
    browser.wait_for("Materialize…")
    browser.click("Materialize…")
    browser.wait_for("Launch 1 run")
    browser.click("Launch 1 run")
    browser.wait_for("Launched run")
    browser.open(f"{served.url}/runs", "3 checks", seconds=60)
    browser.wait_for("In progress (0)", seconds=90)
    browser.wait_for("Queued (0)", seconds=30)
    assert "Failure" not in browser.text()
    assert materialized(served, browser) > before
    after = {row["window"]: row["state"] for row in json.loads(babylon_here(served.environment, "windows", "--json"))}
    # A bet of an hour may have been settled in a later one: then its dataset is another than was trained.
    assert {after[window] for window in served.windows[:-1]} <= {"trained", "ready"}
    assert after[served.windows[-1]] == "trained"
