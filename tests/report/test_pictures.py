"""The page in a real browser: on a phone and on a desk, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from babylon_assets.report.page import render_page
from tests.browser import Browser, chromium
from tests.report.values import full

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium"),
]
CARD = "getComputedStyle(document.querySelector('section')).backgroundColor"
SEEN = "[...document.querySelectorAll('svg[role=img]')].filter(e => e.getClientRects().length).map(e => e.clientWidth)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(full()), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375, 320])
def test_it_fits_the_width_and_the_mode(browser: Browser, address: str, tmp_path: Path, width: int, mode: str) -> None:
    browser.prefer(mode)
    browser.resize(width, 800)
    browser.open(address, "What needs a person")
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(CARD) == {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 28, 37)"}[mode]
    drawn = browser.run(SEEN)
    assert len(drawn) == 3  # one curve of the two, and two bars
    assert all(width * 0.7 < each < width for each in drawn)
    assert browser.picture(tmp_path / "report.png", settle=0.1).stat().st_size > 20_000


def test_nothing_ran_and_nothing_was_asked_for(browser: Browser, address: str) -> None:
    browser.open(address, "What needs a person")
    assert browser.run("performance.getEntriesByType('resource').length") == 0
    assert browser.run("document.scripts.length + document.images.length") == 0
    assert "<script>alert('1')</script>" in browser.text()


def test_older_windows_open_on_a_click(browser: Browser, address: str) -> None:
    browser.open(address, "What needs a person")
    assert "2026-11-24T08:00" not in browser.text().split("Windows\n")[1].split("Where the samples")[0]
    browser.run("document.querySelector('summary').click()")
    browser.wait_for("older windows, newest first")
    assert "2026-11-24T08:00" in browser.text().split("Windows\n")[1]
