"""`babylon doctor`: is everything here that the product needs, and what to do about what is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.table import Table

from babylon_assets.commands.terminal import output
from babylon_assets.core.errors import BabylonError, PermanentError
from babylon_assets.settings import Settings, declarations, load_settings, shown
from babylon_assets.store.database import Database, open_database

#: Packages whose versions must be these: ART patches transformers at import and fails with a newer openai client.
PINS = {"openpipe-art": "0.5.18", "transformers": "5.2.0", "openai": "2.", "dagster": "1.13.27", "torch": "2.13.0"}
DISK_GIB = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do when it is not well (empty when it is)."""

    name: str
    found: str
    remedy: str = ""


def doctor() -> None:
    """Check database, versions, disk, base model and backend, and say what to do about what is wrong.

    Exits with 1 when something is.

    Example: [bold]babylon doctor[/]
    """
    settings = load_settings()
    findings = list(examine(settings))
    output.print(_table(findings))
    output.print(_settings_table(settings))
    if any(finding.remedy for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which a person would mend them."""
    yield from _versions()
    yield _disk(settings)
    yield from _database(settings)
    yield _told("backend", lambda: _backend(settings))
    yield _base_model(settings)


def _told(name: str, look: Callable[[], str]) -> Finding:
    """A finding of a look that raises our own errors; their message ends with what to do."""
    try:
        return Finding(name, look())
    except BabylonError as error:
        return Finding(name, type(error).__name__, str(error))


def _versions() -> Iterator[Finding]:
    for package, wanted in PINS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            yield Finding(package, "not installed", "type: make install")
            continue
        well = found.split("+")[0].startswith(wanted)
        yield Finding(package, found, "" if well else f"{wanted} is needed; type: make install")


def _disk(settings: Settings) -> Finding:
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    remedy = "" if free >= DISK_GIB else f"free {DISK_GIB:.0f} GiB, or set BABYLON_HOME to a folder on another disk"
    return Finding("disk", f"{free:.1f} GiB free at {place}", remedy)


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        database = open_database(settings)
        with database.connect() as conn:
            zone = conn.execute("SHOW TimeZone").fetchone()
            server = conn.execute("SHOW server_version").fetchone()
    except BabylonError as error:
        yield Finding("database", type(error).__name__, str(error))
        return
    assert zone is not None and server is not None
    yield Finding("database", f"PostgreSQL {server[0]} at {database.place}")
    utc = zone[0] == "UTC"
    yield Finding("session TimeZone", zone[0], "" if utc else "remove the TimeZone from the role or the URL's options")
    yield _told("our tables", lambda: _revision(database))
    yield _told("the game's tables", lambda: _game(database))


def _revision(database: Database) -> str:
    from babylon_assets.store.database import newest_revision

    with database.connect() as conn:
        there = conn.execute("SELECT to_regclass('babylon_training.alembic_version')").fetchone()
        row = (
            conn.execute("SELECT version_num FROM babylon_training.alembic_version").fetchone()
            if there and there[0]
            else None
        )
    found, newest = row[0] if row else "none", newest_revision()
    if found != newest:
        raise PermanentError(f"revision {found}, newest is {newest}; type: babylon migrate")
    return f"revision {found}, the newest"


def _game(database: Database) -> str:
    from babylon_assets.game import source

    with database.connect() as conn:
        source.check_tables(conn)
        found, odd = source.list_windows(conn), source.count_odd_ids(conn)
    said = f"{len(found)} windows" + (f", the newest {found[-1].window}" if found else "")
    told = (
        f"; {sum(odd.values())} rows whose windowId is no window, such as {next(iter(odd), '')!r}, go by their endTime"
    )
    return said + (told if odd else "")


def _backend(settings: Settings) -> str:
    from babylon_assets.training.backends import choose_backend

    choice = choose_backend(settings)
    return f"{choice.name}: {choice.reason}"


def _base_model(settings: Settings) -> Finding:
    if settings.base_model is not None:
        return Finding("base model", settings.base_model)
    made = sorted((settings.home / "base_models").glob("babylon-small-*/measurement.json"))
    return Finding(
        "base model", str(made[-1].parent) if made else "not made yet; the first training makes it, in about a minute"
    )


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "check", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        mark = "[bold red]no[/]" if finding.remedy else "[green]ok[/]"
        table.add_row(mark, finding.name, finding.found, finding.remedy)
    return table


def _settings_table(settings: Settings) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, title="settings", title_justify="left")
    for name in ("variable", "value", "meaning"):
        table.add_column(name, overflow="fold")
    values = shown(settings)
    for item in declarations():
        table.add_row(item.variable, values[item.variable] or "-", item.doc)
    return table
