"""The site and the report in headless Chromium: key paths, the keyboard, phones, dark mode, and the rules of axe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.site_links import link_agent, link_card, link_checkpoint, link_comparison, link_sample
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.adapter_weights import WEIGHTS
from babylon_assets.ledger.database import Database
from babylon_assets.orchestration.ui_guard import UiGuard
from babylon_assets.report.page import render_page
from babylon_assets.site.application import make_site
from babylon_assets.training.model_cards import write_card
from tests.browser import AXE, Browser, accessibility_faults, chromium
from tests.ledger.values import CHAIN
from tests.report.values import full
from tests.servers import Server
from tests.site.conftest import served
from tests.site.filled_ledger import WINDOWS, Conn, fill
from tests.site.test_comparison import add_prompts

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium"),
]
PAGES = {
    "/site/": "Checkpoints",
    link_checkpoint(f"{CHAIN}@3"): "The gate's verdict",
    link_card(f"{CHAIN}@3"): "What was measured",
    "/site/samples": "28 samples",
    link_sample(WINDOWS[0], f"t3-{WINDOWS[0]}/0/0"): "Its neighbours",
    "/site/agents": "agent-3",
    link_agent("agent-3"): "Reward over windows",
    link_comparison(f"{CHAIN}@1", f"{CHAIN}@3"): "Where they differ most",
    link_comparison(f"{CHAIN}@1", f"{CHAIN}@5"): "What both were measured by",
    "/site/compare": "Compare",
    "/site/samples?text=nowhere": "No sample fits",
    "/site/playground": "Ask both",
    "/site/playground?agent=agent-3&step=0": "An empty prompt",
    "/site/report": "No report was written yet",
    "/site/nowhere": "That is not here",
}


@pytest.fixture(scope="module")
def site(server: Server, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, served over HTTP behind the UI's guard; the newest checkpoint is a branch's."""
    name = server.create(migrated)
    database: Database = server.database(name)
    with database.connect() as conn:
        fill(conn)
        made = checkpoints.get(conn, f"{CHAIN}-2")
        assert made is not None
        newest = datetime(2026, 11, 30, tzinfo=UTC)
        branch = replace(made, id="branch", chain=f"{CHAIN}+2026-11-05T11", created_at=newest)
        checkpoints.insert_checkpoint(conn, branch)
        _write_card(conn, tmp_path_factory.mktemp("weights"))
        add_prompts(conn, 1, [0.0, 0.25, -0.5, 0.5])
        add_prompts(conn, 3, [0.5, 0.25, 0.5, 0.75])
    with served(UiGuard(make_site(Settings(environment="babylon"), lambda: database), {}, ())) as address:
        yield address
    server.drop(name)


def _write_card(conn: Conn, folder: Path) -> None:
    """Give a checkpoint a folder with a model card."""
    (folder / WEIGHTS).write_bytes(b"weights")
    conn.execute("UPDATE babylon_training.model_checkpoints SET path = %s WHERE id = %s", [str(folder), f"{CHAIN}-3"])
    member = checkpoints.get(conn, f"{CHAIN}-3")
    assert member is not None
    write_card(conn, member)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(1280, 900) as opened:
        yield opened


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize(("mode", "width"), [("light", 1280), ("dark", 360)])
def test_no_page_has_a_serious_accessibility_fault(
    browser: Browser, site: str, mode: str, width: int, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    report.write_text(render_page(full()), encoding="utf-8")
    browser.prefer(mode)
    browser.resize(width, 900)
    faults = {}
    for address, text in {**{site + path: text for path, text in PAGES.items()}, report.as_uri(): "Windows"}.items():
        browser.open(address, text)
        faults[address] = accessibility_faults(browser)
        assert browser.run("document.documentElement.scrollWidth") <= width, f"{address} is wider than the window"
    assert {address: found for address, found in faults.items() if found} == {}


def test_a_person_searches_reads_and_compares(browser: Browser, site: str) -> None:
    browser.prefer("light")
    browser.resize(1280, 900)
    browser.open(f"{site}/site/samples", "28 samples")
    browser.run("document.querySelector('[name=text]').value = 'plain 3'")
    browser.run("document.querySelector('[name=window]').value = " + repr(WINDOWS[1]))
    browser.press("Enter", "[name=window]")
    browser.wait_for("1 sample\n")
    browser.run("document.querySelector('td .text').click()")
    browser.wait_for("What was asked")
    assert "A yes 43" in browser.text()
    browser.resize(1400, 900)
    browser.open(f"{site}/site/", "Compare A with B")
    fits = "[...document.querySelectorAll('.scroll')].every(table => table.scrollWidth <= table.clientWidth)"
    assert browser.run(fits), "the register with a branch is wider than its place"
    browser.click("Compare A with B")  # the served policy and its parent are chosen, not the branch
    browser.wait_for("Where they differ most")
    assert "answer 2 of 1" in browser.text()


def test_the_words_of_an_action_are_not_broken(browser: Browser, site: str) -> None:
    browser.resize(1280, 900)
    browser.open(f"{site}/site/samples", "28 samples")
    lines = browser.run("""(() => {
        const cell = document.querySelector("td.action"), word = document.createRange();
        cell.textContent = "BUY_PREDICTION_SHARES no A 50";
        word.setStart(cell.firstChild, 0);
        word.setEnd(cell.firstChild, 21);
        return word.getClientRects().length;
    })()""")
    assert lines == 1


def test_an_answer_in_json_goes_on_in_another_line_after_a_comma(browser: Browser, site: str) -> None:
    browser.resize(1280, 900)
    browser.open(f"{site}/site/samples", "28 samples")
    lines = browser.run("""(() => {
        const words = [...document.querySelector("td.answer a").childNodes].filter(node => node.data);
        return words.map(node => {
            const word = document.createRange();
            word.setStart(node, 0);
            word.setEnd(node, node.data.indexOf(":"));
            return word.getClientRects().length;
        });
    })()""")
    assert lines == [1, 1]


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(browser: Browser, site: str) -> None:
    browser.resize(1280, 900)
    browser.open(f"{site}/site/agents", "agent-3")
    reached = []
    for _ in range(14):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.innerText || document.activeElement.name"))
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached[0] == "Skip to the content"
    assert {"Checkpoints", "Samples", "text", "Search", "agent-3"} <= set(reached)
