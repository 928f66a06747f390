"""Takes the pages' pictures of the Dagster UI, the site, the report and the learning curve, from a home in which the
demo has run.

Needs Chromium. Type `make up` in one terminal and `python -m tools.screenshots` in another, with the same settings;
a window as argument takes another than the newest. `python -m tools.screenshots report` takes the report alone, which
needs no `make up`. `python -m tools.screenshots backfill` launches a backfill of all windows and takes the pages that
show it; `AUTOMATION=false WINDOWS_FROM=<2 days ago> babylon up --simulate --hours 48` makes a home to do that in.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from PIL import Image

from babylon_assets.cli.write_report import gather, write
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.site_links import SITE
from babylon_assets.ledger.database import open_database
from babylon_assets.ledger.windows import list_windows
from babylon_assets.report.page import render_page
from tests.browser import Browser

#: True when nothing on the page turns any more, such as the mark of what is still read.
STILL = "!document.getAnimations().some(drawn => drawn.effect.getTiming().iterations === Infinity)"
IMAGES = Path(__file__).parent.parent / "docs" / "images"


def main() -> None:
    """Write the images, over those that are there."""
    settings = load_settings()
    if sys.argv[1:] == ["backfill"]:
        take_backfill(f"http://127.0.0.1:{settings.dagster_port}", IMAGES)
        return
    take_report(settings)
    if sys.argv[1:] == ["report"]:
        return
    with open_database(settings).connect() as conn:
        trained = [row.window_id for row in list_windows(conn) if row.status == "trained"]
    take_curve(settings.home / "learning_curve.svg")
    take(settings, sys.argv[1] if len(sys.argv) > 1 else trained[-1])


def take_curve(drawing: Path) -> None:
    """The learning curve that the demo left, as large as it is."""
    with Browser(920, 320) as browser:
        browser.resize(920, 320)
        browser.open(drawing.as_uri(), "")
        browser.picture(IMAGES / "learning_curve.png")


def take_report(settings: Settings) -> None:
    """The report on a desk, down to the windows, beside the same in the dark on a phone."""
    page = settings.home / "report.html"
    write(page, render_page(gather(settings, open_database(settings), datetime.now(UTC))))
    IMAGES.mkdir(exist_ok=True)
    parts = []
    with Browser(1000, 900) as browser:
        for width, mode in ((1000, "light"), (390, "dark")):
            browser.prefer(mode)
            browser.resize(width, 900)
            browser.open(page.as_uri(), "The state of the loop")
            parts.append(browser.picture(settings.home / f"report-{mode}.png", settle=0.3))
    beside(parts, IMAGES / "report.png")


def beside(parts: list[Path], path: Path) -> None:
    """Pictures of the same height, one beside the other."""
    pictures = [Image.open(part) for part in parts]
    joined = Image.new("RGB", (sum(each.width for each in pictures), pictures[0].height))
    place = 0
    for each in pictures:
        joined.paste(each, (place, 0))
        place += each.width
    joined.save(path, optimize=True)


def take(settings: Settings, window: str) -> None:
    """The pages of one window."""
    ui = f"http://127.0.0.1:{settings.dagster_port}"
    partition = f"{ui}/assets/model_checkpoints?view=partitions&partition={quote(window)}"
    with Browser(1400, 900) as browser:
        browser.open(f"{ui}/assets/model_checkpoints?view=partitions", "Hide navigation")
        browser.click("Hide navigation")
        browser.resize(2600, 620)  # smaller, and the assets are drawn without what is in them
        browser.open(f"{ui}/locations/babylon_assets/asset-groups/babylon/lineage", "1 / 1 Passed")
        take_lineage(browser, IMAGES / "lineage.png")
        browser.resize(1400, 585)
        browser.open(partition, "learning_curve")
        browser.wait_until(STILL)
        browser.picture(IMAGES / "partitions.png")
        browser.resize(1400, 1300)
        take_checkpoint(browser, window, IMAGES / "materialization.png")
        browser.open(f"{ui}/assets/checkpoint_evaluations?view=partitions&partition={quote(window)}", "base model")
        browser.wait_until(STILL)
        metadata_above(browser, window, "evaluations").save(IMAGES / "evaluations.png", optimize=True)
        browser.resize(1440, 860)
        browser.open(f"{ui}{SITE}/", "What the states mean")
        browser.picture(IMAGES / "site.png", settle=1)


def take_lineage(browser: Browser, path: Path) -> None:
    """The assets in two rows: in one they are too small where a page is as wide as a README."""
    nodes = browser.run(
        "[...document.querySelectorAll('foreignObject')].map(node => [node.textContent, node.getBoundingClientRect()])"
        ".map(([text, at]) => [text, at.left, at.top, at.right, at.bottom])"
    )
    middle = next(node[1] for node in nodes if node[0].startswith("model_checkpoints")) - 40
    left, top = (min(node[side] for node in nodes) - 20 for side in (1, 2))
    right, bottom = (max(node[side] for node in nodes) + 20 for side in (3, 4))
    whole = Image.open(browser.picture(path, settle=3))
    rows = [whole.crop((left, top, middle, bottom)), whole.crop((middle, top, right, bottom))]
    below(rows).save(path, optimize=True)


def take_checkpoint(browser: Browser, window: str, path: Path) -> None:
    """The metadata of a checkpoint down to its learning curve, and the curve, which opens on a click."""
    metadata = metadata_above(browser, window, "learning_curve")
    browser.click("[Show Markdown]", row="learning_curve")
    browser.wait_until("[...document.images].some(drawn => drawn.complete && drawn.width > 300)")
    drawn = "[...document.images].find(drawn => drawn.width > 300)"
    below([metadata, cut(browser, f"{drawn}.getBoundingClientRect()")]).save(path, optimize=True)


def metadata_above(browser: Browser, window: str, last: str) -> Image.Image:
    """The page of a partition from its name down to a row of its metadata, that row included."""
    name = f"[...document.querySelectorAll('*')].findLast(e => !e.children.length && e.textContent === '{window}')"
    row = f"[...document.querySelectorAll('tr')].find(e => e.innerText.startsWith('{last}'))"
    box = "{left: row.left - 24, top: name.top - 44, right: row.right + 24, bottom: row.bottom + 8}"
    return cut(browser, f"(([name, row]) => ({box}))([{name}, {row}].map(e => e.getBoundingClientRect()))")


def cut(browser: Browser, box: str) -> Image.Image:
    """The part of the page in a box, which is a JavaScript expression."""
    sides = browser.run(f"(box => [box.left, box.top, box.right, box.bottom])({box})")
    with TemporaryDirectory() as folder:
        return Image.open(browser.picture(Path(folder) / "page.png", settle=2)).crop(tuple(map(round, sides)))


def below(pictures: list[Image.Image]) -> Image.Image:
    """Pictures, each below the one before it, in the middle."""
    joined = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    place = 0
    for each in pictures:
        joined.paste(each, ((joined.width - each.width) // 2, place))
        place += each.height
    return joined


def take_backfill(ui: str, images: Path) -> None:
    """Launch a backfill of all windows: the dialog, the backfill while it runs, the partitions afterwards."""
    with Browser(1400, 760) as browser:
        open_dialog(browser, ui)
        browser.picture(images / "backfill_dialog.png")
        launch(browser)
        browser.open(newest_backfill(browser, ui), "promoted_model")
        browser.wait_for("100% completed", seconds=300)  # the data
        browser.picture(images / "backfill.png")
        browser.wait_for("Succeeded\nAsset name", seconds=3600)
        browser.open(f"{ui}/assets/model_checkpoints?view=partitions", "Hide navigation")
        browser.click("Hide navigation")
        browser.wait_for("Materializing (0)")
        browser.picture(images / "backfill_partitions.png", settle=3)


def open_dialog(browser: Browser, ui: str) -> None:
    """The dialog that materializes all assets, with all partitions chosen."""
    browser.open(f"{ui}/locations/babylon_assets/asset-groups/babylon/lineage", "promoted_model", seconds=60)
    browser.wait_for("Materialize all…")
    browser.click("Materialize all…")
    browser.wait_for("Launch backfill")
    browser.click("All")
    browser.wait_until("!document.body.innerText.includes('Partition selection\\n0 partitions')")


def launch(browser: Browser) -> None:
    """Launch what the dialog says."""
    browser.click("Launch backfill")
    browser.wait_until("!document.body.innerText.includes('Partition selection')", seconds=60)


def newest_backfill(browser: Browser, ui: str) -> str:
    """The page of the backfill that was launched last."""
    link = "document.querySelector('a[href^=\"/runs/b/\"]')"
    browser.open(f"{ui}/runs?view=backfills", "Backfill")
    browser.wait_until(f"!!{link}")
    return ui + str(browser.run(f"{link}.getAttribute('href')"))


if __name__ == "__main__":
    main()
