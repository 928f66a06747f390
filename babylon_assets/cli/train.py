"""`babylon train`: the whole line for one window, or for every closed one in order, as recorded Dagster runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count as numbers_from
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from babylon_assets.cli.list_windows import policy_names
from babylon_assets.cli.promote import checkpoint_state
from babylon_assets.cli.terminal import bold, count, errors, number, output, print_fact, show_log, tell_step, waiting
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.errors import PermanentError, TransientError
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.token_counts import trained_tokens
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.ledger import checkpoints, verdicts
from babylon_assets.ledger.sqlstates import named_error
from babylon_assets.ledger.trajectory_counts import count_quarantined
from babylon_assets.ledger.windows import WindowRow, get_window

if TYPE_CHECKING:
    from babylon_assets.ledger.database import Database
    from babylon_assets.orchestration.runtime import Line
    from babylon_assets.training.branches import BranchDataset

#: States in which a window asks for nothing more.
FINISHED = ("trained", "thin", "skipped")
POLL_SECONDS = 60
#: What is done to a window while an asset is made, in words.
DOING = {
    "raw_trajectories": "reading",
    "scored_trajectories": "scoring",
    "training_datasets": "freezing the dataset of",
    "model_checkpoints": "training",
    "checkpoint_evaluations": "evaluating the checkpoint of",
    "promoted_model": "deciding about the checkpoint of",
}
#: Reasons why trajectories were not read that are named after a training.
MOST_REASONS = 3
#: Until a window that failed is tried again.
RETRY_SECONDS = 3600


def train(
    window: Annotated[str | None, typer.Argument(help="A window such as 2026-11-05T14:00.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Train every closed window that is not done, then wait for more.")
    ] = False,
    branch: Annotated[
        bool, typer.Option("--branch", help="Train a window again on a branch, after the chain has passed it.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the branch, instead of the window's. An existing branch goes on.")
    ] = None,
) -> None:
    """Read, score and train one window.

    It prints what was trained and how, or why nothing was. Unchanged input writes nothing new. A branch is scored by
    the settings of the command; the window keeps its own scores and its own dataset.

    Example: [bold]babylon train 2026-11-05T14:00[/]

    Example: [bold]babylon train 2026-11-05T14:00 --branch[/]
    """
    if (window is None) == (not follow):
        raise typer.BadParameter("give a window, or --follow for all of them", param_hint="WINDOW")
    if follow and (branch or name):
        raise typer.BadParameter("a branch is trained window by window", param_hint="--branch")
    settings = load_settings()
    if window is not None:
        refuse_running(window, settings.windows)
        beside = branch or name is not None
        all_of_it = f"reading, scoring, training and evaluating {window} in one run"
        with (
            waiting(f"preparing a branch of {window}" if beside else all_of_it) as say,
            opened_line(
                reaching(settings, window), "train", begins=lambda asset, window: say(f"{DOING[asset]} {window}")
            ) as (database, line),
        ):
            refuse_unrecorded(settings, database, window)
            if beside:
                train_beside(database, line, settings, window, name, say)
            else:
                report(database, line, settings, window)
        if window < settings.window_start and not settings.begins_with_the_record:
            output.print(
                f"the UI shows windows from {settings.window_start} on; set WINDOWS_FROM={window} to see this one"
            )
        return
    with prepared_line(settings, "train --follow") as (database, line):
        tell_step(f"training every closed window that waits, then looking every {POLL_SECONDS} s; stop: Ctrl-C")
        follow_windows(database, line, settings)


def follow_windows(database: Database, line: Line, settings: Settings, rounds: int | None = None) -> None:
    """Train every window that waits, again and again; one that fails is noted, and tried again an hour later.

    Args:
        rounds: how often to look for windows; None: until the process is ended.
    """
    due: dict[str, float] = {}
    for round_number in numbers_from(0) if rounds is None else range(rounds):
        if round_number:
            time.sleep(POLL_SECONDS)
        try:
            waiting = waiting_windows(database, settings)
        except (TransientError, psycopg.Error) as error:
            named = named_error(error)
            if not isinstance(named, TransientError):
                raise
            note_failure(f"no windows can be read now: {named}")
            continue
        for window_id in waiting:
            if time.monotonic() < due.get(window_id, 0.0):
                continue
            try:
                report(database, line, settings, window_id)
            except Exception as error:  # Dagster's storage has errors of its own, a full disk others
                reason = named_error(error) or error
                note_failure(f"{window_id} failed, the next one is trained: {str(reason) or type(reason).__name__}")
                due[window_id] = time.monotonic() + RETRY_SECONDS


def note_failure(sentence: str) -> None:
    errors.print(f"{datetime.now():%H:%M:%S} {sentence}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def opened_line(
    settings: Settings,
    command: str,
    heard: Callable[[int, int, int], None] = lambda *_: None,
    begins: Callable[[str, str], None] = lambda *_: None,
    *,
    begin: bool = False,
) -> Iterator[tuple[Database, Line]]:
    """The migrated database and the line over the definitions that the UI serves, with a crash's leftovers removed.

    Args:
        command: what the runs are launched by, for the UI.
        begin: whether an embedded database is created where there is none.
        heard: called after each window of a run with the windows done, of how many, and how many failed.
        begins: called before an asset of a window is made, with the names of both.
    """
    from babylon_assets.definitions import build_definitions
    from babylon_assets.environments.weighted_scorers import check_weights
    from babylon_assets.ledger.database import migrate, open_database
    from babylon_assets.ledger.window_length import check_window_length
    from babylon_assets.orchestration.resources import Installation
    from babylon_assets.orchestration.runtime import Line, fail_orphaned_runs, open_instance

    show_log(settings.log_level)
    database = open_database(settings, begin=begin)
    migrate(database)
    check_window_length(settings, database)
    check_weights(settings)
    with open_instance(settings, database) as instance:
        fail_orphaned_runs(instance)
        installation = Installation(settings, database, heard, begins)
        yield database, Line(build_definitions(settings, installation=installation), instance, f"babylon {command}")


@contextmanager
def prepared_line(
    settings: Settings,
    command: str,
    heard: Callable[[int, int, int], None] = lambda *_: None,
    *,
    begin: bool = False,
) -> Iterator[tuple[Database, Line]]:
    """As `opened_line`, and every few seconds it says that it is being prepared."""
    with ExitStack() as stack:
        with waiting("preparing the database and the graph"):
            opened = stack.enter_context(opened_line(settings, command, heard, begin=begin))
        yield opened


def waiting_windows(database: Database, settings: Settings) -> list[str]:
    """Closed windows, from WINDOWS_FROM on, that the game has rows of and that are not finished; oldest first.

    One whose checkpoint a killed run left without a verdict is not finished.
    """
    from babylon_assets.environments.registry import open_environment

    environment = open_environment(settings)
    running = settings.windows.of(datetime.now(UTC)).id
    with database.connect() as conn, database.source_of(conn) as source:
        environment.check(source)
        pending = [
            row.window for row in environment.list_windows(source) if settings.window_start <= row.window < running
        ]
        left = verdicts.without_verdict(conn, settings.model_name)
        return [
            window
            for window in pending
            if not finished(get_window(conn, window), settings) or (left is not None and left.window_id == window)
        ]


def finished(row: WindowRow | None, settings: Settings) -> bool:
    """Whether nothing more is to be done for a window; without training, having its dataset is enough."""
    return row is not None and (row.status in FINISHED or (row.status == "ready" and not settings.training.enabled))


def report(database: Database, line: Line, settings: Settings, window: str) -> None:
    """Run the line for a window and print what was trained and how, or why nothing was.

    Raises:
        PermanentError, TransientError: the run failed.
    """
    from babylon_assets.ledger.datasets import load_dataset

    with database.connect() as conn:
        before = checkpoints.by_window(conn, settings.model_name, window)
        judged_before = checkpoint_state(conn, settings.model_name, window)
    run = line.materialize(window)
    with database.connect() as conn:
        row = get_window(conn, window)
        refused = count_quarantined(conn, window)
        checkpoint = checkpoints.by_window(conn, settings.model_name, window)
        counts = load_dataset(conn, row.dataset_id).counts if row is not None and row.dataset_id else {}
        names = policy_names(conn, settings.model_name)
        judged = checkpoint_state(conn, settings.model_name, window)
    if row is None:
        output.print(
            bold(window), " empty  the environment has no row of this window; `babylon windows` lists those it has"
        )
        return
    again = checkpoint is not None and before is not None and checkpoint.id == before.id
    trained = names[checkpoint.id] if checkpoint is not None else "-"
    status = f"was trained before, as {trained}; nothing was trained now" if again else row.status
    output.print(bold(window), f" {status}  {row.reason or ''}")
    output.print(
        f"  read      {_trajectories(row.trajectories)} of {format_plural(row.agents, 'agent')}, "
        f"{format_plural(row.samples, 'sample')}, mean reward {number(row.reward_mean)}"
    )
    if refused:
        print_fact("not read", _refusals(refused), indent=2, width=8)
    output.print(f"  samples   {_kinds(counts)}")
    if checkpoint is not None and not again:
        how = f"{checkpoint.settings.get('method', '')} on {count(trained_tokens(checkpoint.metrics))} tokens"
        output.print(f"  trained   {how}, {names.get(checkpoint.parent_id or '', '-')} -> {trained}")
    if judged is not None and judged != judged_before:
        print_fact("gate", judged, indent=2, width=8)
    output.print(f"  dataset   {row.dataset_id}", highlight=False)
    output.print(f"  run       {run.run_id}, {run.seconds:.1f} s", highlight=False)


def train_beside(
    database: Database, line: Line, settings: Settings, window: str, name: str | None, say: Callable[[str], None]
) -> None:
    """Train what was read of a window beside the chain, scored by these settings, and print what came of it.

    A window that was never read is read first.

    Args:
        say: told what goes on, in words.

    Raises:
        PermanentError, TransientError: as of `freeze_for_branch` and `train_branch`.
    """
    from babylon_assets.orchestration.branch_datasets import freeze_for_branch, has_other_rows, was_read
    from babylon_assets.orchestration.resources import Installation

    installation = Installation(settings, database)
    if not was_read(installation, window):
        line.run_range(["raw_trajectories"], window, window)
    say(f"scoring {window} for a branch")
    dataset = freeze_for_branch(installation, window)
    say(f"training {window} on a branch")
    report_branch(database, settings, window, name, dataset)
    if has_other_rows(installation, window):
        later = f"rows of this window that are new or other ones by now; `babylon train {window}` reads them"
        print_fact("not read", later, indent=2, width=8)


def report_branch(
    database: Database, settings: Settings, window: str, name: str | None, dataset: BranchDataset
) -> None:
    """Train a dataset of a window beside the chain, and print what came of it.

    Raises:
        PermanentError, TransientError: as of `training.window_training.train_branch`.
    """
    from babylon_assets.training.window_training import train_branch

    tell_step(f"training {window} on a branch")
    trained = train_branch(settings, database, window, name, own=dataset)
    with database.connect() as conn:
        names = {
            checkpoint.id: policy_name(checkpoint.chain, checkpoint.step)
            for checkpoint in checkpoints.family(conn, settings.model_name)
        }
    checkpoint, parent = trained.checkpoint, trained.parent
    way = f"{names[parent.id] if parent else '-'} -> {names[checkpoint.id] if checkpoint else '-'}"
    output.print(bold(window), " beside the chain")
    print_fact("branch", f"{way}, {trained.status}: {trained.reason}", indent=2, width=8)
    output.print(f"  dataset   {dataset.id}", highlight=False)


def _refusals(refused: Mapping[str, int]) -> str:
    """Why how many trajectories are in quarantine, the commonest reason first."""
    named = [f"{_trajectories(rows)}: {reason}" for reason, rows in list(refused.items())[:MOST_REASONS]]
    rest = len(refused) - MOST_REASONS
    return "; ".join(named + ([format_plural(rest, "other reason")] if rest > 0 else []))


def _trajectories(number: int) -> str:
    return format_plural(number, "trajectory", "trajectories")


def _kinds(counts: Mapping[str, int]) -> str:
    """How many samples train as what, and why others do not."""
    kinds = [f"{counts[kind]:,} {kind}" for kind in ("policy_gradient", "recompute", "sft") if counts.get(kind)]
    skipped = [f"{n:,} {name}" for name, n in counts.items() if name.startswith("skip: ")]
    return ", ".join(kinds + skipped) or "none"


def reaching(settings: Settings, window: str) -> Settings:
    """The settings with their first window moved back, if need be, so that this one is a partition."""
    return settings.replace(window_start=min(settings.window_start, window))


def refuse_running(window: str, windows: WindowGrid) -> None:
    """Refuse a window that is not over yet: the game still writes into it."""
    if windows.parse(window).end > datetime.now(UTC):
        raise PermanentError(f"{window} is not over yet; train it after it has ended")


def refuse_unrecorded(settings: Settings, database: Database, window: str) -> None:
    """Refuse a window that the environment has no row of, before a run of it is recorded."""
    if list_unrecorded(settings, database, [window]):
        raise PermanentError(
            f"the environment has no row of {window}, so nothing was trained; `babylon windows` lists those it has"
        )


def list_unrecorded(settings: Settings, database: Database, windows: Iterable[str]) -> list[str]:
    """Those of the windows that were never recorded."""
    from babylon_assets.orchestration.resources import Installation
    from babylon_assets.orchestration.unrecorded_windows import is_unrecorded

    installation = Installation(settings, database)
    with installation.reusing_connections():
        return [window for window in windows if is_unrecorded(installation, window)]
