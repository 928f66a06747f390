"""Which of the game's requests to run next, and what to tell the game of those that were run.

A claimed request is known by the runs that carry its id. Rows are claimed and written in
`environments.babylon.training_requests`; a sensor launches the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from babylon_assets.domain.checkpoint_states import explain_end
from babylon_assets.domain.errors import PermanentError, SettingsError
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.environments.base import RequestQueue, TrainingWish
from babylon_assets.ledger import checkpoints, promotions, windows
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.sessions import Connection, only_reads
from babylon_assets.orchestration.resources import Installation

REQUEST_TAG = "babylon/request"
MOST_ATTEMPTS = 3
#: A claim without a run is that of a process which died between the two.
STALE = timedelta(minutes=5)
MOST = 50


@dataclass(frozen=True, slots=True)
class Launch:
    """A run to be launched for a request."""

    request: TrainingWish
    window: str
    attempt: int


def _queue(installation: Installation) -> RequestQueue:
    """The environment's requests.

    Raises:
        SettingsError: it has none.
    """
    environment = installation.environment
    if environment.requests is None:
        raise SettingsError(f"TRAIN_REQUESTS is true, and nobody asks in {environment.name}; set TRAIN_REQUESTS=false")
    return environment.requests


def settle(installation: Installation, instance: dg.DagsterInstance, now: datetime) -> list[TrainingWish]:
    """Tell the game of the claimed requests whose runs have ended; gives those that have to be taken up again.

    Raises:
        SettingsError: the environment has no requests, or its database only reads.
    """
    with installation.connect_source() as source:
        if installation.database.is_apart and only_reads(source):
            raise SettingsError(
                f"TRAIN_REQUESTS is true, and no request can be claimed: {installation.database.source_place} only "
                "reads; set DATABASE_URL to the primary, or TRAIN_REQUESTS=false"
            )
        waiting = _queue(installation).claimed(source, MOST)
    again = []
    for request in waiting:
        runs = runs_of(instance, request)
        if any(not run.is_finished for run in runs):
            continue
        if runs and runs[0].is_success:
            _tell(installation, request)
        elif len(runs) >= MOST_ATTEMPTS:
            _fail(installation, request, f"{len(runs)} runs failed, the last is {runs[0].run_id}")
        elif runs or request.started_at is None or request.started_at + STALE < now:
            again.append(request)
    return again


def next_launch(
    installation: Installation, instance: dg.DagsterInstance, again: Sequence[TrainingWish], now: datetime
) -> Launch | None:
    """The next request to run: one that a dead run left, else the oldest pending one, which is claimed."""
    for request in again:
        with installation.connect_source() as source:
            mine = _queue(installation).take_up(source, request)
        if mine and (launch := _launch(installation, instance, request, now)):
            return launch
    while True:
        with installation.connect_source() as source:
            request_or_none = _queue(installation).claim(source)
        if request_or_none is None:
            return None
        if launch := _launch(installation, instance, request_or_none, now):
            return launch


def runs_of(instance: dg.DagsterInstance, request: TrainingWish) -> Sequence[dg.DagsterRun]:
    """The runs for a request, newest first."""
    return instance.get_runs(filters=dg.RunsFilter(tags={REQUEST_TAG: request.id}), limit=MOST_ATTEMPTS)


def _launch(
    installation: Installation, instance: dg.DagsterInstance, request: TrainingWish, now: datetime
) -> Launch | None:
    """A run for a claimed request; None for one that cannot be run, and the game is told why."""
    refused = _refusal(request.window or "", installation.settings.windows, installation.settings.window_start, now)
    if refused is not None:
        _fail(installation, request, refused)
        return None
    return Launch(request, str(request.window), len(runs_of(instance, request)) + 1)


def _refusal(window: str, grid: WindowGrid, first: str, now: datetime) -> str | None:
    try:
        end = grid.parse(window).end
    except PermanentError as error:
        return str(error)
    if end > now:
        return f"{window} is not over yet; ask for it after it has ended"
    return f"{window} is before WINDOWS_FROM, {first}" if window < first else None


def _fail(installation: Installation, request: TrainingWish, reason: str) -> None:
    with installation.connect_source() as source:
        _queue(installation).fail(source, request.id, reason)


def _tell(installation: Installation, request: TrainingWish) -> None:
    """What became of the window, from the ledger: completed with its loss and policy, or failed with the reason.

    A request is completed by a checkpoint that was promoted and not taken back since: the game may serve what it is
    told of.
    """
    window = str(request.window)
    with installation.connect() as conn, installation.source_of(conn) as source:
        checkpoint = checkpoints.by_window(conn, installation.settings.model_name, window)
        if checkpoint is None:
            row = windows.get_window(conn, window)
            state, reason = ("not read", None) if row is None else (row.status, row.reason)
            _queue(installation).fail(source, request.id, f"{window} is {state}: {reason or 'not trained'}")
        elif (reason := _not_served(conn, checkpoint)) is not None:
            _queue(installation).fail(source, request.id, f"{window} was trained and {reason}")
        else:
            policy = policy_name(checkpoint.chain, checkpoint.step)
            _queue(installation).complete(source, request.id, checkpoint.metrics.get("loss"), policy)


def _not_served(conn: Connection, checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint completes no request: it was never promoted, or the chain left it since; None where it does."""
    policy = policy_name(checkpoint.chain, checkpoint.step)
    if not promotions.was_promoted(conn, checkpoint.id):
        return f"{policy} is not promoted: {explain_end(checkpoint.rejected or 'it has no verdict yet')}"
    return None if checkpoint.rejected is None else f"{policy} was promoted and taken back: {checkpoint.rejected}"
