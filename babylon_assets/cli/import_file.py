"""`babylon import`: trajectories from files of `babylon export`, or of ART, into windows of our tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer

from babylon_assets.cli.list_windows import Json, opened
from babylon_assets.cli.terminal import bold, count, output, print_fact, print_json
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.windows import upsert_window

if TYPE_CHECKING:
    from babylon_assets.domain.trajectories import Quarantined
    from babylon_assets.environments.files.imports import Entry, Imported, ImportedCall
    from babylon_assets.ledger.inference_calls import InferenceCall
    from babylon_assets.ledger.trajectories import ImportedRows

#: Reasons that a person is told, and places in the file for each.
MOST_REASONS, MOST_PLACES = 10, 3


def import_file(
    file: Annotated[
        Path, typer.Argument(help="A .jsonl of ART's trajectory groups, or a .parquet of `babylon export`.")
    ],
    window: Annotated[
        str | None, typer.Option(help="Window of all trajectories.", show_default="the one that each names")
    ] = None,
    json: Json = False,
) -> None:
    """Read trajectories with their rewards from a file into our tables; the game's database is not needed.

    What cannot be read is told with its reason and its place, and goes to quarantine; the rest goes in. The same file
    again changes nothing. The exit code is 1 where everything was refused.
    `babylon train` then trains on the window. The file is held in memory.

    Example: [bold]babylon import exported/2026-11-05T1400.jsonl[/]
    """
    from babylon_assets.environments.files.entries import within_bounds
    from babylon_assets.environments.files.imports import arranged

    settings = load_settings()
    if window is not None:
        settings.windows.parse(window)
    entries = within_bounds(_entries(file, window, settings.windows))
    imported, refused = arranged(entries, window, settings.datasets.moment_seconds, settings.windows)
    with opened(settings).connect() as conn:
        done = {
            name: _keep(conn, settings, name, imported.get(name), [bad for bad in refused if bad.window == name])
            for name in sorted({*imported, *(bad.window for bad in refused)})
        }
    if json:
        print_json([_summarize(name, *kept) | {"reasons": _reasons(kept[1])} for name, kept in done.items()])
    for name, kept in [] if json else done.items():
        _show(name, _summarize(name, *kept), _reasons(kept[1]))
    if not done and not json:
        output.print("nothing in the file")
    if done and not any(rows.written or rows.unchanged or rows.from_the_game for rows, _ in done.values()):
        raise typer.Exit(1)


def _entries(file: Path, window: str | None, windows: WindowGrid) -> Iterator[Entry | Quarantined]:
    from babylon_assets.environments.files.bounds import lines_of
    from babylon_assets.environments.files.imports import art_entries, table_entries
    from babylon_assets.environments.files.parquet_rows import parquet_rows

    if not file.is_file():
        raise PermanentError(f"there is no file {file}; give a .jsonl or .parquet file")
    if file.suffix == ".parquet":
        yield from table_entries(parquet_rows(file), window, windows)
    elif file.suffix == ".jsonl":
        with file.open("rb") as content:
            yield from art_entries(lines_of(content), window, windows)
    else:
        raise PermanentError(f"{file} is neither .jsonl nor .parquet; give one of these")


def _keep(
    conn: Connection, settings: Settings, window: str, imported: Imported | None, refused: list[Quarantined]
) -> tuple[ImportedRows, list[Quarantined]]:
    """Keep what a file has of one window, all of it or nothing; a trajectory that the database refuses is put aside.

    It gives all that was refused as well.
    """
    from babylon_assets.environments.files.imports import Imported, refusal

    whole = imported or Imported([], [])
    try:
        return _keep_rows(conn, settings, window, whole, refused), refused
    except psycopg.DataError:
        storable = Imported([], whole.calls)
        for record, rewards in whole.records:
            try:
                with conn.transaction(force_rollback=True):
                    _keep_rows(conn, settings, window, Imported([(record, rewards)], whole.calls), [])
                storable.records.append((record, rewards))
            except psycopg.DataError as error:
                refused = [*refused, refusal(record, error.diag.message_primary or str(error))]
        return _keep_rows(conn, settings, window, storable, refused), refused


def _keep_rows(
    conn: Connection, settings: Settings, window: str, imported: Imported, refused: list[Quarantined]
) -> ImportedRows:
    from babylon_assets.ledger import inference_calls, trajectories

    with conn.transaction():
        done = trajectories.import_rows(conn, window, imported.records, refused)
        fresh = [call for call in imported.calls if call.record.trajectory_id in done.written]
        inference_calls.replace_calls(conn, done.old_calls, [_call(call, settings) for call in fresh])
        if done.written or done.refused:
            kept = trajectories.summary(conn, window)
            mark = trajectories.fingerprint_with_imports(None, trajectories.imported_hash(conn, window))
            upsert_window(conn, window, fingerprint=mark, trajectories=kept.trajectories, agents=kept.agents)
    return done


def _call(call: ImportedCall, settings: Settings) -> InferenceCall:
    """The answer as a recorded call, with the tokens that came with it."""
    from babylon_assets.domain.policies import policy_step
    from babylon_assets.ledger.inference_calls import InferenceCall

    entry = call.entry
    return InferenceCall(
        call_id=call.call_id,
        created_at=call.record.start_time,
        model=call.sample.model,
        policy=entry.policy,
        policy_step=policy_step(entry.policy or "", settings.model_name),
        agent_id=call.record.agent_id,
        trajectory_id=call.record.trajectory_id,
        step=entry.step,
        messages=entry.messages,
        response=entry.response,
        prompt_token_ids=entry.prompt_token_ids,
        token_ids=entry.token_ids,
        logprobs=entry.logprobs,
        temperature=None,
        seed=None,
        latency_ms=None,
        finish_reason=None,
        tools=entry.tools,
        tool_calls=entry.tool_calls,
    )


def _summarize(window: str, rows: ImportedRows, refused: list[Quarantined]) -> dict[str, Any]:
    return {
        "window": window,
        "imported": len(rows.written),
        "unchanged": rows.unchanged,
        "already read from the environment": rows.from_the_game,
        "refused": len(refused),
    }


def _reasons(refused: list[Quarantined]) -> list[dict[str, Any]]:
    """Why how many entries were refused and where the first of them stand, the commonest reason first."""
    places: dict[str, list[str]] = {}
    for bad in refused:
        places.setdefault(bad.reason, []).append(bad.place or f"the trajectory {bad.trajectory_id}")
    return [
        {"reason": reason, "refused": len(listed), "places": listed[:MOST_PLACES]}
        for reason, listed in sorted(places.items(), key=lambda item: -len(item[1]))
    ]


def _show(window: str, summary: dict[str, Any], reasons: list[dict[str, Any]]) -> None:
    """A line of numbers, and a line for each reason."""
    numbers = ", ".join(f"{count(number)} {name}" for name, number in summary.items() if name != "window")
    output.print(bold(window), f" {numbers}", highlight=False)
    for row in reasons[:MOST_REASONS]:
        more = ", ..." if row["refused"] > len(row["places"]) else ""
        print_fact(f"{count(row['refused'])} refused", f"{row['reason']} ({', '.join(row['places'])}{more})", indent=2)
    if len(reasons) > MOST_REASONS:
        output.print(f"  and {format_plural(len(reasons) - MOST_REASONS, 'other reason')}; --json has all")
