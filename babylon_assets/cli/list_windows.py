"""`babylon migrate` and `babylon windows`: the database, and what our tables say of each window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from babylon_assets.cli.terminal import (
    bold,
    count,
    errors,
    fitting_table,
    number,
    output,
    plain,
    print_json,
    short,
)
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.display_text import format_plural, shorten
from babylon_assets.domain.errors import PermanentError, SourceError
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints, late_samples, verdicts
from babylon_assets.ledger import windows as ledger
from babylon_assets.ledger.database import Connection, Database, open_database
from babylon_assets.ledger.database import migrate as migrate_schema
from babylon_assets.ledger.late_samples import CarriedSamples
from babylon_assets.ledger.trajectory_counts import count_unread
from babylon_assets.ledger.windows import WindowRow

if TYPE_CHECKING:
    from babylon_assets.environments.base import SourceWindow

#: Characters of a reason in the table of windows; `babylon status WINDOW` has all of it.
MOST_OF_A_REASON = 90
#: What is said below a table of windows with late samples.
LATE = (
    "late: samples that are new or other ones since their window was trained; the next one that is trained takes them"
)
#: Rows of a table for a person, a week of hours; `--all` has them all.
MOST_ROWS = 168
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Everything = Annotated[bool, typer.Option("--all", help=f"Show all of them, not the newest {MOST_ROWS} alone.")]
_Row = TypeVar("_Row")


def migrate(
    begin: Annotated[
        bool, typer.Option("--begin", help="Create the embedded PostgreSQL where the home folder has none.")
    ] = False,
) -> None:
    """Bring our tables (schema babylon_training) to the newest revision.

    It is safe to repeat, and adds nothing to the environment's own schema.

    Example: [bold]babylon migrate[/]

    Example: [bold]babylon migrate --begin[/]   (a new home, without a server of your own)
    """
    database = open_database(load_settings(), begin=begin)
    revision = migrate_schema(database)
    output.print(f"{database.place}: schema babylon_training is at revision", bold(revision), soft_wrap=True)


def list_all(everything: Everything = False, json: Json = False) -> None:
    """List the newest windows with their state and counts, oldest first.

    Example: [bold]babylon windows --json[/]
    """
    settings = load_settings()
    database = opened(settings)
    with database.connect() as conn, database.source_of(conn) as source:
        rows = list_known_windows(settings, conn, source)
        tell_odd_ids(settings, source)
        names, plain = policy_names(conn, settings.model_name), plain_names(conn, settings.model_name)
        carried = late_samples.carried(conn, settings.model_name)
        unread = count_unread(conn)
    if json:
        late = by_window(carried)
        print_json([window_json(row, plain) | carried_json(row.window_id, late.get(row.window_id, ())) for row in rows])
    elif rows:
        print_newest(rows, everything, lambda shown: window_table(shown, names, carried, unread))
        if carried:
            output.print(LATE, style="dim")
    else:
        output.print(
            "no windows yet; `babylon demo` plays some, `babylon doctor` says whether the environment's are in reach"
        )


def print_newest(rows: Sequence[_Row], everything: bool, table: Callable[[Sequence[_Row]], Table]) -> None:
    """The table of the last rows, or of all; below it, how many are not shown."""
    shown = rows if everything else rows[-MOST_ROWS:]
    output.print(table(shown))
    if len(shown) < len(rows):
        output.print(f"the newest {len(shown)} of {len(rows):,}; --all shows all of them", style="dim")


def opened(settings: Settings) -> Database:
    """The database with our tables in it.

    Raises:
        PermanentError: the tables are not there.
    """
    database = open_database(settings, begin=False)
    with database.connect() as conn:
        there = conn.execute("SELECT to_regclass('babylon_training.windows')").fetchone()
    if there is None or there[0] is None:
        raise PermanentError(f"{database.place} has no schema babylon_training; type: babylon migrate")
    return database


def list_known_windows(settings: Settings, conn: Connection, source: Connection) -> list[WindowRow]:
    """The windows of our tables and those of the game that were not read yet, oldest first.

    Of a window that was not read the game's own counts are given.
    """
    from babylon_assets.environments.registry import open_environment

    environment = open_environment(settings)
    rows = {row.window_id: row for row in ledger.list_windows(conn)}
    try:
        environment.check(source)
        for window in environment.list_windows(source):
            row = rows.setdefault(window.window, _unread(window))
            if row.status == "open" and not row.trajectories:
                rows[window.window] = replace(row, trajectories=window.trajectories, agents=window.agents)
    except SourceError:
        source.rollback()
    return [rows[window] for window in sorted(rows)]


def tell_odd_ids(settings: Settings, source: Connection) -> None:
    """Say on standard error how many rows of the game have an id that is no window's, if there are any."""
    from babylon_assets.environments.registry import open_environment

    environment = open_environment(settings)
    try:
        environment.check(source)
    except SourceError:
        source.rollback()
        return
    odd = environment.misplaced_rows(source)
    if odd:
        named = ", ".join(map(repr, list(odd)[:3]))
        errors.print(
            f"The windowId of {format_plural(sum(odd.values()), 'trajectory', 'trajectories')} is no window ({named}): "
            "what has such an id is read with the hour in which it ended"
        )


def window_json(row: WindowRow, names: Mapping[str, str]) -> dict[str, Any]:
    """What `babylon windows --json` prints of a window; the keys are a promise.

    Args:
        names: of the policies by checkpoint id, as of `plain_names`.
    """
    return {
        "window": row.window_id,
        "state": row.status,
        "trajectories": row.trajectories,
        "samples": row.samples,
        "trainable_tokens": row.trainable_tokens,
        "reward_mean": row.reward_mean,
        "oracle": (row.reference or {}).get("oracle"),
        "dataset": row.dataset_id,
        "parent": row.parent_id,
        "checkpoint": row.checkpoint_id,
        "parent_policy": names.get(row.parent_id or ""),
        "policy": names.get(row.checkpoint_id or ""),
        "understood": row.understood,
        "unknown_words": row.unknown_words,
        "understanding": row.understanding,
    }


def by_window(carried: Sequence[CarriedSamples]) -> dict[str, list[CarriedSamples]]:
    """Late samples by each window that has given or taken them."""
    known: dict[str, list[CarriedSamples]] = {}
    for carry in carried:
        for window in {carry.window, carry.into or carry.window}:
            known.setdefault(window, []).append(carry)
    return known


def carried_json(window: str, carried: Sequence[CarriedSamples]) -> dict[str, Any]:
    """How many late samples the window took of which, how many which took of it, and how many wait."""
    return {
        "carried_from": {carry.window: carry.samples for carry in carried if carry.into == window},
        "carried_into": {carry.into: carry.samples for carry in carried if carry.window == window and carry.into},
        "carried_too_old": sum(carry.too_old for carry in carried if carry.into == window),
        "late_waiting": sum(carry.samples for carry in carried if carry.window == window and carry.into is None),
    }


def plain_names(conn: Connection, chain: str) -> dict[str, str]:
    """The name of each checkpoint of a chain, such as `babylon-agent@3`, by its id."""
    return {checkpoint.id: policy_name(chain, checkpoint.step) for checkpoint in checkpoints.chain(conn, chain)}


def policy_names(conn: Connection, chain: str) -> dict[str, str]:
    """The name of each checkpoint of a chain, such as `babylon-agent@3`, by its id; a rejected one's says so."""
    standings = verdicts.standings(conn, chain)
    return {
        checkpoint.id: policy_name(chain, checkpoint.step)
        + (f" ({standings[checkpoint.window_id]})" if checkpoint.rejected and checkpoint.window_id in standings else "")
        for checkpoint in checkpoints.chain(conn, chain)
    }


def window_table(
    rows: Sequence[WindowRow],
    names: Mapping[str, str],
    carried: Sequence[CarriedSamples] = (),
    unread: Mapping[str, int] = MappingProxyType({}),
) -> Table:
    """The same for a person.

    Args:
        names: of the policies by checkpoint id.
        unread: how many rows of a window could not be read.
    """
    late = by_window(carried)
    numbers = ("trajectories", "understood", "samples", "tokens", "reward", "oracle")
    listed = [
        {
            "window": row.window_id,
            "state": row.status,
            "trajectories": count(row.trajectories),
            "understood": "" if row.understood is None else f"{row.understood:.0%}",
            "samples": count(row.samples),
            "tokens": count(row.trainable_tokens),
            "reward": number(row.reward_mean),
            "oracle": number((row.reference or {}).get("oracle")),
            "policy": names.get(row.checkpoint_id or "", short(row.checkpoint_id)),
            "note": _note(row, carried_json(row.window_id, late.get(row.window_id, ())), unread.get(row.window_id, 0)),
        }
        for row in rows
    ]
    unsaid = {name for name, values in (("oracle", [row.reference for row in rows]),) if not any(values)}
    unsaid |= {"note", "understood"} - {name for row in listed for name in row if row[name]}
    listed = [{name: value for name, value in row.items() if name not in unsaid} for row in listed]
    return fitting_table(listed, drop=("oracle", "tokens", "trajectories", "samples", "understood"), right=numbers)


def _note(row: WindowRow, late: Mapping[str, Any], unread: int) -> str:
    """Why a window has no checkpoint, what is late of it or joined it, its unknown words, and what was not read."""
    reason = _reason(row.reason or "") if row.checkpoint_id is None else ""
    unknown = f"not known: {plain(row.unknown_words)}" if row.unknown_words else None
    not_read = f"{format_plural(unread, 'row')} not read" if unread else None
    return "; ".join(filter(None, [reason, *_carried(late), unknown, not_read]))


def _reason(text: str) -> str:
    """A reason, cut on a terminal alone and never within a command in backquotes: somebody types it."""
    if not output.is_terminal or len(text) <= MOST_OF_A_REASON:
        return text
    inside = text[:MOST_OF_A_REASON].count("`") % 2
    return shorten(text, text.find("`", MOST_OF_A_REASON) + 1 if inside else MOST_OF_A_REASON)


def _carried(late: Mapping[str, Any]) -> list[str]:
    """Late samples in words: those that joined the window, those that joined others, those that wait."""
    lines = []
    if late["carried_too_old"]:
        lines.append(f"{count(sum(late['carried_from'].values()))} late, {count(late['carried_too_old'])} too old")
    joined = {} if lines else late["carried_from"]
    for given, direction in ((joined, "from"), (late["carried_into"], "into")):
        if given:
            [first, *others] = given
            places = f"{1 + len(others)} windows" if others else first
            lines.append(f"{count(sum(given.values()))} late {direction} {places}")
    return lines + ([f"{count(late['late_waiting'])} late wait"] if late["late_waiting"] else [])


def _unread(source: SourceWindow) -> WindowRow:
    """A window of the game that no run has looked at."""
    return WindowRow(
        window_id=source.window,
        status="open",
        fingerprint=None,
        trajectories=source.trajectories,
        agents=source.agents,
        samples=0,
        trainable_tokens=0,
        reward_mean=None,
        reward_std=None,
        dataset_id=None,
        checkpoint_id=None,
        parent_id=None,
        reference=None,
        reason=None,
        changed_at=datetime.now(UTC),
    )
