"""`babylon report`: the state of the loop as one page, from our tables, the game's, and the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from babylon_assets.cli import stopping
from babylon_assets.cli.list_windows import list_known_windows, opened
from babylon_assets.cli.terminal import errors, output
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import BabylonError, PermanentError, SourceError
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.overview import read_report, unread
from babylon_assets.report.page import render_page
from babylon_assets.report.summary import Report


def report(
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file.", show_default="report.html in the home folder", dir_okay=False),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser as well.")] = False,
) -> None:
    """Write the state of the loop as one HTML page: what needs a person, the learning curve, windows, promotions,
    quarantine, cost.

    The file holds all that it shows and loads nothing from a server. It can be mailed, or read on a phone.

    Example: [bold]babylon report --open[/]

    Example: [bold]babylon report --output /var/www/babylon.html[/]
    """
    stopping.begins_anew()
    settings = load_settings()
    path = to or settings.home / "report.html"
    write(path, render_page(gather(settings, opened(settings), datetime.now(UTC))))
    output.print(str(path), highlight=False, soft_wrap=True)
    if show and typer.launch(path.absolute().as_uri()) != 0:
        errors.print("no browser could be started here; open the file above in one")


def gather(settings: Settings, database: Database, now: datetime) -> Report:
    """The facts of the report: our tables in one snapshot, then what the game has beyond them, then the disk."""
    place = "the embedded database" if database.embedded else database.place
    with database.connect() as conn:
        ours = read_report(conn, settings.model_name, place, now, settings.windows)
    with database.connect() as conn, database.source_of(conn) as source:
        read = {window.id: window for window in ours.windows}
        since = settings.window_start
        known = list_known_windows(settings, conn, source)
        rows = [row for row in known if row.window_id in read or row.window_id >= since]
        odd_ids = _odd_ids(settings, source)
    return replace(
        ours,
        windows=[read.get(row.window_id) or unread(row, settings.windows) for row in rows],
        odd_ids=odd_ids,
        guides=_guides(),
        ui=f"http://127.0.0.1:{settings.dagster_port}",
        free_gib=_free_gib(settings.home),
    )


def write_for_site(settings: Settings, database: Database) -> str | None:
    """Write the report into the home folder, where the site shows it; return why it could not be written, if so."""
    try:
        write(settings.home / "report.html", render_page(gather(settings, database, datetime.now(UTC))))
    except (BabylonError, psycopg.Error) as error:
        return f"no report was written for the site: {error}; type: babylon report"
    return None


def write(path: Path, text: str) -> None:
    """Write the file as a whole: whoever reads it sees the page before or the page after.

    Raises:
        PermanentError: its folder cannot be written to.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise PermanentError(f"{path} cannot be written: {error.strerror}; name another file with --output") from None


def _odd_ids(settings: Settings, source: Connection) -> Mapping[str, int]:
    """Rows of the game whose id is no window's; none where there is no game."""
    from babylon_assets.environments.registry import open_environment

    environment = open_environment(settings)
    try:
        environment.check(source)
    except SourceError:
        source.rollback()
        return {}
    return environment.misplaced_rows(source)


def _guides() -> dict[str, str]:
    """The pages on incidents, where they lie beside the package: in a checkout."""
    folder = Path(__file__).parents[2] / "docs" / "incidents"
    return {page.stem: page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.md"))}


def _free_gib(home: Path) -> float:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    return shutil.disk_usage(place).free / 2**30
