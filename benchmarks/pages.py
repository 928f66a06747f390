"""How long pages take in a home of 120 windows and in one of 2,000: the site's, and those of Dagster's UI.

Eight windows are played through a gateway and trained by the product, with a small model that was taught for a moment.
Both homes are made of them: their rows under other hours, copied by SQL, and their runs, materializations and checks,
stored again by Dagster's own storage. So each window has the samples, the evaluations, the checkpoint and the metadata
of a real one, and its chain is as long as its windows are many. The recorded calls and the texts of the game's own rows
are those of the newest week only; no page reads them.

Both homes are served as `babylon up` serves them, each by its own webserver on its own PostgreSQL. A round asks every
page of one and of the other, now this first and now that; the figure is the ratio of the medians over all rounds, with
the interval of 95% that drawing the rounds again gives. A page of the site is one request. Of a page of Dagster's UI it
is the sum of the queries that Chromium sends when it opens it in the home of 2,000 windows. `python -m benchmarks.pages
FOLDER` keeps the homes in a folder and takes up those that are there; `site` or `ui` after it asks these pages alone.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.ledger.database import Database, stop_embedded
from babylon_assets.orchestration.runtime import open_instance
from benchmarks.many_windows import site_pages, ui_pages
from benchmarks.many_windows.homes import make_home
from benchmarks.many_windows.seed import play_seed
from benchmarks.many_windows.served import ServedHome, serve
from benchmarks.report import Row, at_most, publish
from tests.browser import Browser

FEW, MANY = 120, 2000
ROUNDS = {"site": 21, "ui": 9}
GOAL = 1.25
DRAWS = 2000
Home = tuple[Settings, Database]
Ask = Callable[[], float]


def main() -> None:
    """Run the bench, or those of its parts that are named after the folder of the homes."""
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        folder = Path(given[0]) if given else Path(scratch)
        rows = _rows(folder, given[1:])
    publish("pages", rows, load_settings().home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _rows(folder: Path, wanted: Sequence[str]) -> list[Row]:
    with _made(folder) as homes, ExitStack() as stack:
        served = [stack.enter_context(serve(*home)) for home in homes]
        rows: list[Row] = []
        if not wanted or "site" in wanted:
            rows += _compare("site", _ask_site(homes, served))
        if not wanted or "ui" in wanted:
            rows += _compare("ui", _ask_ui(homes, served))
    return rows


@contextmanager
def _made(folder: Path) -> Iterator[list[Home]]:
    """The two homes; their servers are stopped at the end."""
    places = [folder / name for name in ("played", str(FEW), str(MANY))]
    try:
        played = play_seed(places[0])
        yield [make_home(place, int(place.name), *played) for place in places[1:]]
    finally:
        for place in places:
            stop_embedded(Settings(home=place))


def _ask_site(homes: Sequence[Home], served: Sequence[ServedHome]) -> dict[str, list[Ask]]:
    pages = []
    for settings, database in homes:
        write_report(settings, database)
        with database.connect() as conn:
            pages.append(site_pages.list_pages(conn))
    return {name: [_getter(home, there[name]) for home, there in zip(served, pages, strict=True)] for name in pages[0]}


def _getter(home: ServedHome, path: str) -> Ask:
    return lambda: home.get(path)


def write_report(settings: Settings, database: Database) -> None:
    """What `babylon report` writes, for the page that shows it."""
    from datetime import UTC, datetime

    from babylon_assets.cli.write_report import gather, write
    from babylon_assets.report.page import render_page

    write(settings.home / "report.html", render_page(gather(settings, database, datetime.now(UTC))))


def _ask_ui(homes: Sequence[Home], served: Sequence[ServedHome]) -> dict[str, list[Ask]]:
    """What a page sends in the home of many windows, asked in both: how it bundles queries is a matter of moments."""
    ids = [_newest_ids(*home) for home in homes]
    few, many = served
    asked: dict[str, list[Ask]] = {}
    for name, path in ui_pages.list_pages(*ids[1]).items():
        with Browser() as browser:
            bodies = ui_pages.record_queries(browser, many.url + path)
        print(f"{name}: {', '.join(ui_pages.names_of(bodies))}", flush=True)
        asked[name] = [_asker(few, [_renamed(body, ids[1], ids[0]) for body in bodies]), _asker(many, bodies)]
    return asked


def _newest_ids(settings: Settings, database: Database) -> tuple[str, str]:
    """A home's newest window and run."""
    with database.connect() as conn:
        ((window,),) = conn.execute("SELECT max(window_id) FROM babylon_training.windows")
    with open_instance(settings, database) as instance:
        return window, instance.get_runs(limit=1)[0].run_id


def _renamed(body: str, ids: Sequence[str], others: Sequence[str]) -> str:
    for own, other in zip(ids, others, strict=True):
        body = body.replace(own, other)
    return body


def _asker(home: ServedHome, bodies: Sequence[str]) -> Ask:
    return lambda: sum(home.query(body) for body in bodies)


def _compare(part: str, pages: dict[str, list[Ask]]) -> list[Row]:
    """A row for each page: how much longer it takes with many windows than with few; below it, the two medians."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in pages}
    for number in range(-1, ROUNDS[part]):
        for name, (few, many) in pages.items():
            pair = (few(), many()) if number % 2 else (many(), few())[::-1]
            if number >= 0:  # what is cached is cached in both by then
                taken[name].append(pair)
    return [row for name in pages for row in _rows_of(f"{part}: {name}", taken[name])]


def _rows_of(name: str, taken: Sequence[tuple[float, float]]) -> Iterator[Row]:
    ratio, low, high = _ratio(taken)
    print(f"{name}: {ratio:.2f}, {low:.2f} to {high:.2f}", flush=True)
    yield at_most(name, ratio, "times", GOAL)
    yield Row("  interval, from", low, "times")
    yield Row("  interval, to", high, "times")
    for count, column in zip((FEW, MANY), zip(*taken, strict=True), strict=True):
        yield Row(f"  {count} windows", statistics.median(column), "ms")


def _ratio(taken: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The ratio of the medians, with the interval of 95% of rounds that are drawn again."""
    drawn, rng = [], random.Random(0)
    for _ in range(DRAWS):
        drawn.append(_of_medians([taken[rng.randrange(len(taken))] for _ in taken]))
    drawn.sort()
    return _of_medians(taken), drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]


def _of_medians(taken: Sequence[tuple[float, float]]) -> float:
    return statistics.median(many for _, many in taken) / statistics.median(few for few, _ in taken)


if __name__ == "__main__":
    main()
