"""Takes the README's pictures of the Dagster UI and of the learning curve, from a home in which the demo has run.

Needs Chromium. Type `make up` in one terminal and `python -m docs.screenshots` in another, with the same settings;
a window as argument takes another than the newest.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from urllib.parse import quote

from babylon_assets.settings import Settings, load_settings
from babylon_assets.store.database import open_database
from babylon_assets.store.windows import list_windows
from tests.browser import Browser

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Write the images, over those that are there."""
    settings = load_settings()
    with open_database(settings).connect() as conn:
        trained = [row.window_id for row in list_windows(conn) if row.status == "trained"]
    IMAGES.mkdir(exist_ok=True)
    shutil.copyfile(settings.home / "learning_curve.png", IMAGES / "learning_curve.png")
    take(settings, sys.argv[1] if len(sys.argv) > 1 else trained[-1])


def take(settings: Settings, window: str) -> None:
    """The pages of one window."""
    ui = f"http://127.0.0.1:{settings.dagster_port}"
    partition = f"{ui}/assets/model_checkpoints?view=partitions&partition={quote(window)}"
    with Browser(1400, 900) as browser:
        browser.open(f"{ui}/assets/model_checkpoints?view=partitions", "Hide navigation")
        browser.click("Hide navigation")
        browser.resize(1400, 440)
        browser.open(f"{ui}/locations/babylon_assets/asset-groups/babylon/lineage", "1 / 1 Passed")
        browser.picture(IMAGES / "lineage.png", settle=3)
        browser.resize(1400, 728)
        browser.open(partition, "learning_curve")
        browser.picture(IMAGES / "partitions.png")
        browser.click("[Show Markdown]")
        browser.picture(IMAGES / "materialization.png", settle=2)


if __name__ == "__main__":
    main()
