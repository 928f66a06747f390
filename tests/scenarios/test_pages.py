"""What a person sees after the demo: `babylon up` in a real browser, on the embedded database."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from babylon_assets.settings import Settings
from babylon_assets.store.database import stop_embedded
from tests.browser import Browser, chromium
from tests.scenarios.conftest import Environment, babylon, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium"),
]
ASSETS = ("raw_trajectories", "scored_trajectories", "training_datasets", "model_checkpoints")


@dataclass
class Served:
    """A home whose UI is up, and the windows that were trained in it, oldest first."""

    url: str
    environment: Environment
    windows: list[str]

    def partition(self, asset: str, window: str) -> str:
        return f"{self.url}/assets/{asset}?view=partitions&partition={quote(window)}"


@pytest.fixture(scope="module")
def served(environment_of: Callable[..., Environment], early_in_the_hour: None) -> Iterator[Served]:
    home = Path(tempfile.mkdtemp(prefix="babylon-served-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = environment_of(home, DAGSTER_PORT=str(port))
    try:
        babylon(environment, "demo", "--windows", "3")
        windows = [row["window"] for row in json.loads(babylon(environment, "windows", "--json"))]
        with start(environment, "up") as process:
            assert process.stdout is not None
            assert str(port) in process.stdout.readline()
            yield Served(f"http://127.0.0.1:{port}", environment, windows)
            process.send_signal(signal.SIGINT)
    finally:
        stop_embedded(Settings(home=home))
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def test_the_lineage_shows_the_line(served: Served, browser: Browser, tmp_path: Path) -> None:
    browser.resize(3000, 950)  # so that six assets are drawn with their checks
    browser.open(f"{served.url}/locations/babylon_assets/asset-groups/babylon/lineage", ASSETS[-1])
    browser.wait_for("Passed")
    assert [asset for asset in ASSETS if asset not in browser.text()] == []
    assert browser.picture(tmp_path / "lineage.png").stat().st_size > 20_000
    browser.resize(1500, 950)


def test_the_partitions_of_the_demo_are_there(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/assets/model_checkpoints?view=partitions", "Materialized (3)")
    assert [window for window in served.windows if window not in browser.text()] == []


def test_a_materialization_shows_its_numbers_and_its_picture(served: Served, browser: Browser) -> None:
    browser.open(served.partition("model_checkpoints", served.windows[-1]), "learning_curve")
    shown = browser.text()
    assert [name for name in ("trainable_tokens", "loss", "entropy", "checkpoint", "parent") if name not in shown] == []
    browser.click("[Show Markdown]")
    inline = "[...document.querySelectorAll('img')].filter(image => image.src.startsWith('data:image/'))"
    browser.wait_until(f"{inline}.some(image => image.naturalWidth > 500)")


def test_a_histogram_is_drawn_in_place(served: Served, browser: Browser, tmp_path: Path) -> None:
    browser.open(served.partition("training_datasets", served.windows[-1]), "effective_samples")
    assert "best_and_worst" in browser.text()
    browser.click("[Show Markdown]")
    inline = "[...document.querySelectorAll('img')].filter(image => image.src.startsWith('data:image/svg'))"
    browser.wait_until(f"{inline}.some(image => image.naturalWidth > 500)")
    browser.picture(tmp_path / "histogram.png")


def test_every_check_shows_its_windows(served: Served, browser: Browser, tmp_path: Path) -> None:
    browser.open(f"{served.url}/assets/training_datasets?view=checks", "no_hindsight")
    assert [name for name in ("ids_stable", "has_trainable_tokens") if name not in browser.text()] == []
    browser.picture(tmp_path / "checks.png")


def test_the_description_teaches(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/assets/training_datasets", "Description")
    browser.wait_for("compared within a group")
    assert "team:babylon" in browser.text() or "babylon" in browser.text().partition("Owners")[2]


def test_the_demos_runs_are_listed(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/runs", "train_window")
    browser.wait_for(served.windows[0])
    assert browser.text().count("Success") >= 3


def materialized(served: Served, browser: Browser) -> int:
    """How often the first window's dataset was made; a changed window is read again by a sensor."""
    browser.open(served.partition("training_datasets", served.windows[0]), "dataset_id")
    found = re.search(r"View all historical events \((\d+)\)", browser.text())
    return int(found[1]) if found else 1


def test_a_partition_materializes_by_hand(served: Served, browser: Browser) -> None:
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
    after = json.loads(babylon(served.environment, "windows", "--json"))
    # A bet of the first hour may have been settled in a later one: then its dataset is another than was trained.
    assert after[0]["state"] in ("trained", "ready")
    assert [row["state"] for row in after[1:]] == ["trained"] * 2
