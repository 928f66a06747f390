"""The page as a document: what it says, that nothing hostile gets through, that it asks nobody for anything."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from babylon_assets import report
from babylon_assets.domain.late_data import beside
from babylon_assets.domain.site_links import link_checkpoint, link_samples
from babylon_assets.report.page import FIRST_ROWS, MOST_ROWS, render_page
from tests.browser import Browser, chromium
from tests.report.values import HOSTILE, full, nothing, promotion, well, window

TEMPLATES = Path(report.__file__).parent / "templates"
STYLE = "".join((TEMPLATES / name).read_text() for name in ("palette.css", "page.css", "charts.css"))
FULL = render_page(full())
GUIDE = f"""# The disk <b>is</b> full

## What to type

- one `df`
- ![two](https://evil.example/x) [three](javascript:alert(1)) <https://evil.example>

```
babylon prune --keep 24
```

{HOSTILE}
"""


class Document(HTMLParser):
    """Every element with its attributes, and the text; fails where elements do not close in order."""

    VOID = ("meta", "br")

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self._open[-1:] else ""

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_every_section_is_there_and_says_its_numbers() -> None:
    document = Document(FULL)
    headings = (
        "State",
        "What needs a person",
        "Learning curve",
        "Windows",
        "Promotions",
        "The newest verdict",
        "Evaluations",
        "Quarantine",
        "Forgotten agents",
        "Cost",
    )
    assert [heading for heading in headings if heading not in document.text] == []
    said = (
        *("babylon-agent@39", "8 things need a person", "promotion at 2026-11-25 19:44", "1.4 GiB"),
        *("live valid actions fell to 0.71", "0.4810", "0.4400 to 0.5200", "$41.70", "$3.25", "1:27:11", "18,400,000"),
        *("trained 32", "failed 1", "stepsJson is not JSON", "byte 18211", "MIN_AGENTS_PER_WINDOW is 3", "78.9%"),
        "not yet babylon train 2026-11-25T14:00",
        *("tokens trained on", "7,005", "made at 2026-11-25 20:14"),
        *("What was understood", "99.5%", "test users: 13", "marketType swap (2)", "412"),
        *("rejected: market -0.041", "its market reward is -0.041", "not worse by more than 0"),
    )
    assert [each for each in said if each not in document.text] == []


def test_a_loop_in_order_says_so_and_shows_no_empty_section() -> None:
    text = Document(render_page(well())).text
    assert "nothing needs a person" in text
    assert [
        heading for heading in ("What needs a person", "Promotions", "Cost", "Evaluations") if heading in text
    ] == []
    assert "No row is in quarantine" in text


def test_what_holds_of_every_late_window_is_said_once() -> None:
    reason = "its data changed after training, on 2026-11-05 at 16:51 UTC; 3 late samples carried into 2026-11-05T14:00"
    windows = [window(back) for back in range(FIRST_ROWS + 1, 0, -1)]
    late = [replace(row, reason=f"{reason}; {beside(row.id)}") for row in windows]
    document = Document(render_page(well(windows=late)))
    assert document.text.count("changed on 2026-11-05 at 16:51 UTC; 3 late samples carried into") == len(late)
    assert document.text.count("changed after training") == 1
    assert document.text.count("--branch trains the window beside it") == document.text.count("--branch") == 1
    assert "1 older window" in document.text and "1 older windows" not in document.text
    assert "--branch" not in Document(render_page(well(windows=windows))).text


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium")
def test_no_table_is_cut_on_a_desk(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(FULL, encoding="utf-8")
    with Browser(1200, 900) as browser:
        browser.open(page.as_uri(), "What was understood")
        wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
        assert browser.run(wide) == 0


def test_a_loop_that_has_not_begun_has_a_page() -> None:
    text = Document(render_page(well(windows=[], head=None))).text
    assert "No windows yet." in text
    assert "none yet" in text


def test_what_agents_wrote_is_shown_and_never_markup() -> None:
    document = Document(FULL)
    assert "<script>alert('1')</script><img src=https://evil.example/x" in document.text
    assert {tag for tag, _ in document.elements} & {
        "script",
        "img",
        "iframe",
        "object",
        "link",
        "base",
        "form",
    } == set()
    assert [
        name for _, given in document.elements for name in given if name.startswith("on") or name in ("src", "style")
    ] == []
    assert re.search("[\x00\u202e]", FULL) is None
    assert HOSTILE not in FULL


def test_it_asks_nobody_for_anything() -> None:
    document = Document(FULL)
    assert [given["href"] for given in document.named("a")] == ["#needs"]  # links are followed, not fetched
    assert re.findall(r"url\(|@import|//", STYLE) == []
    [rules] = [given["content"] or "" for given in document.named("meta") if given.get("http-equiv")]
    assert "default-src 'none'" in rules
    assert "script" not in rules
    assert render_page(full()) == FULL


def test_incidents_are_links_to_their_pages_windows_to_the_ui_and_policies_to_the_site() -> None:
    guided = replace(full(), guides={"disk-full": GUIDE}, ui="http://127.0.0.1:3000")
    document = Document(render_page(guided))
    links = [given["href"] or "" for given in document.named("a")]
    assert "#guide-disk-full" in links and [given["id"] for given in document.named("article")] == ["guide-disk-full"]
    windows = [link for link in links if "/assets/" in link]
    newest = guided.windows[-1].id
    assert len(windows) == len(guided.windows)
    assert windows[0] == f"http://127.0.0.1:3000/assets/model_checkpoints?view=partitions&partition={quote(newest)}"
    site = {"/site/", link_checkpoint("babylon-agent@39"), link_samples(window=newest)}
    assert {f"http://127.0.0.1:3000{address}" for address in site} <= set(links)


def test_a_guide_is_html_and_nothing_in_it_acts() -> None:
    made = render_page(replace(full(), guides={"disk-full": GUIDE}))
    document = Document(made)
    assert "<h3>The disk &lt;b&gt;is&lt;/b&gt; full</h3>" in made and "<h4>What to type</h4>" in made
    assert "<li>one <code>df</code></li>" in made and "<pre><code>babylon prune --keep 24\n</code></pre>" in made
    assert "```" not in document.text
    assert document.named("img") == document.named("script") == []
    assert [given["href"] for given in document.named("a") if not (given["href"] or "").startswith("#")] == []
    assert re.search("[\x00\u202e]", made) is None


def test_captions_speak_of_what_is_drawn() -> None:
    alone = [replace(row, references=None) for row in well().windows]
    said = {"Dashed": well(), "Triangles": well(promotions=[promotion(2)])}
    for word, with_it in said.items():
        assert word in Document(render_page(with_it)).text
        assert word not in Document(render_page(well(windows=alone))).text


def test_what_a_window_does_not_lack_is_an_empty_cell_with_a_label() -> None:
    made = render_page(well(windows=[window(6, understanding={"actions": 4, "recognised": 4})]))
    cells = '<td class="words" data-label="rows not read"></td><td class="words" data-label="words not known"></td>'
    assert cells in made
    assert ".stack .words:empty, .stack .wide { display:none }" in STYLE  # on a phone


def test_a_reward_above_the_oracle_is_explained() -> None:
    above = [*well().windows[:-1], window(1, reward=0.7)]
    assert "above the oracle's by luck" in Document(render_page(well(windows=above))).text
    below = [replace(row, reward=0.2) for row in above]
    assert "by luck" not in Document(render_page(well(windows=below))).text


def test_a_window_that_the_chain_passed_has_no_late_samples() -> None:
    passed = window(3).id
    reason = f"the chain has moved on to {window(1).id}; {beside(passed)}"
    text = Document(render_page(well(windows=[nothing(3, "skipped", reason), window(1)]))).text
    assert "nothing needs a person" in text and reason in text
    assert "Late samples" not in text


def test_tables_have_captions_headings_and_a_heading_for_each_row() -> None:
    document = Document(FULL)
    tables = FULL.split("<table")[1:]
    assert len(tables) == len(document.named("caption")) == 10
    for table in tables:
        rows = table.split("</table>")[0].split("<tr>")[2:]
        assert rows
        assert [row for row in rows if 'scope="row"' not in row] == []
        assert 'scope="col"' in table
    identities = [given["id"] for _, given in document.elements if "id" in given]
    assert len(identities) == len(set(identities))
    named = [part for _, given in document.elements for part in (given.get("aria-labelledby") or "").split()]
    assert set(named) <= set(identities)


@pytest.mark.parametrize("count", [FIRST_ROWS, FIRST_ROWS + 1, MOST_ROWS + 3])
def test_older_windows_are_folded_and_the_oldest_counted(count: int) -> None:
    many = [window(1, id=f"w{number:04d}", policy=None) for number in range(count)]
    made = render_page(well(windows=many))
    assert len(re.findall(r'scope="row">w\d{4}|class="whole">w\d{4}', made)) == min(count, MOST_ROWS)
    assert ("<details>" in made) == (count > FIRST_ROWS)
    assert ("3 more are left out" in made) == (count > MOST_ROWS)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_in_both_modes(mode: int) -> None:
    colours = [dict(re.findall(r"--(\w+):#(\w+)", block)) for block in STYLE.split("prefers-color-scheme: dark")][mode]
    inks = ("ink", "muted", "policy", "good", "fair", "poor", "link")
    weak = [ink for ink in inks for ground in ("card", "page") if contrast(colours[ink], colours[ground]) < 4.5]
    assert weak == []
