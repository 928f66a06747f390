"""`babylon demo`: the simulated game, played and trained window by window, from nothing to a learning curve.

Each window is played with the served policy, which a gateway of the demo's own serves over HTTP, and then run through
the line as a recorded Dagster run. A window is played in one transaction and trained at most once, so that a killed
demo goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from babylon_assets.cli.list_windows import policy_names, window_table
from babylon_assets.cli.promote import checkpoint_state
from babylon_assets.cli.simulated_game import (
    as_begun,
    create_tables,
    play_once,
    refuse_another_base,
    refuse_another_environment,
    refuse_another_game,
    remember_game,
    serving_the_game,
)
from babylon_assets.cli.terminal import bold, errors, number, output, progress, share_callback, waiting
from babylon_assets.cli.train import finished, prepared_line, reaching, refuse_running
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.windows import WindowGrid
from babylon_assets.ledger import verdicts, windows
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import WindowRow

if TYPE_CHECKING:
    from babylon_assets.orchestration.runtime import Line
    from babylon_assets.serving.client import GatewayPolicy


def demo(
    count: Annotated[int, typer.Option("--windows", min=1, help="How many of the last closed windows to play.")] = 24,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the market, instead of SIMULATION_SEED.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WINDOW", help="The last window to play, instead of the last closed one.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The base model, instead of BASE_MODEL, such as smollm2."),
    ] = None,
) -> None:
    """Play and train the last closed windows of the simulated market, and show what was learned.

    It needs nothing but this installation: PostgreSQL, the market and the base model are made on first use. A second
    call goes on where the first stopped. The same windows, seed and settings give the same checkpoints.

    With [bold]--model smollm2[/] a pretrained language model of 135 million parameters is trained instead of the small
    one. It comes from the package registry once. A home folder keeps the model that its game was begun with.

    Example: [bold]babylon demo --windows 6[/]
    """
    settings = load_settings()
    refuse_another_environment(settings)
    # What plays is trained here, whatever key there is.
    settings = settings.replace(training_backend="embedded", environment="simulated")
    settings = as_begun(settings if model is None else settings.replace(base_model=model))
    settings = settings if seed is None else settings.replace(simulation_seed=seed)
    refuse_another_game(settings)
    wanted = wanted_windows(settings.windows, count, until)
    with prepared_line(reaching(settings, wanted[0]), "demo", begin=True) as (database, line):
        create_tables(database)
        left = unfinished(database, line, settings, wanted)
        if left:
            base = _base_model(settings)
            refuse_another_base(settings, base)
            remember_game(settings, base)
            with _players(settings, database, base) as players:
                _play_and_train(settings, database, line, players, left)
        else:
            done = f"the {format_plural(count, 'window')} up to {wanted[-1]} {'is' if count == 1 else 'are'} done"
            output.print(f"{done}; the next one can be played when it is over")
        _show(settings, database, max(count, len(left)))


def wanted_windows(grid: WindowGrid, count: int, until: str | None) -> list[str]:
    """The last closed windows, or those up to a given one, oldest first.

    Raises:
        PermanentError: the given text is no window or not over yet.
    """
    if until is None:
        return grid.closed(datetime.now(UTC), count)
    refuse_running(until, grid)
    return grid.closed(grid.parse(until).end, count)


def unfinished(database: Database, line: Line, settings: Settings, wanted: Iterable[str]) -> list[str]:
    """Played windows that are not finished, then the wanted ones after the newest played; oldest first.

    Time goes forward: a window before one that was played is not played any more.
    """
    with database.connect() as conn:
        rows = {row.window_id: row for row in windows.list_windows(conn)}
    played = sorted(window for window, row in rows.items() if row.reference is not None)
    recorded = line.materialized("promoted_model")
    left = [window for window in played if window not in recorded or not finished(rows[window], settings)]
    return left + [window for window in wanted if not played or window > played[-1]]


def _base_model(settings: Settings) -> str:
    from babylon_assets.config.settings import prepare_libraries

    prepare_libraries(settings)
    from babylon_assets.training.roots import base_model_of

    with waiting("preparing the base model", beside_bar=True) as say, progress() as bar:
        return base_model_of(settings, share_callback(bar, say))


@contextmanager
def _players(settings: Settings, database: Database, base: str) -> Iterator[GatewayPolicy]:
    """The simulated players as clients of a gateway, which is started for them and stopped with the demo."""
    from babylon_assets.config.settings import subprocess_environment
    from babylon_assets.serving.client import GatewayPolicy
    from babylon_assets.serving.process import GatewayProcess

    own = serving_the_game(settings).replace(
        base_model=base, gateway_engine="embedded", gateway_keys={}, canary_share=0.0
    )
    environment = subprocess_environment(own, database.dagster_url)
    with ExitStack() as stack:
        with waiting("starting the gateway that the players ask"):
            gateway = stack.enter_context(GatewayProcess(own, environment))
            players = stack.enter_context(GatewayPolicy(gateway.url, settings.model_name))
        yield players


def _play_and_train(
    settings: Settings, database: Database, line: Line, players: GatewayPolicy, left: list[str]
) -> None:
    begun = waiting(f"playing and training {format_plural(len(left), 'window')} from {left[0]} on", beside_bar=True)
    shown = progress("{task.fields[samples]} samples", "reward {task.fields[reward]}", "{task.fields[took]}")
    with begun as say, shown as bar:
        task = bar.add_task("playing", total=len(left), samples="-", reward="-", took="-")
        for window in left:
            bar.update(task, description=window)
            started = time.monotonic()
            say(f"playing {window}")
            with database.connect() as conn:
                play_once(settings, conn, players, window)
            say(f"training {window}")
            line.materialize(window)
            with database.connect() as conn:
                row = windows.get_window(conn, window)
                judged = checkpoint_state(conn, settings.model_name, window)
            _advance(bar, task, row, judged, time.monotonic() - started)


def _advance(bar: Progress, task: TaskID, row: WindowRow | None, judged: str | None, seconds: float) -> None:
    """One window further; where no bar can be drawn, a line says so."""
    samples, reward = (row.samples, number(row.reward_mean)) if row else (0, "-")
    bar.update(task, advance=1, samples=samples, reward=reward, took=f"{seconds:.1f} s")
    if not errors.is_terminal and row is not None:
        line = f"{row.window_id}  {row.status}  {samples} samples  reward {reward}  {judged or '-'}  {seconds:.1f} s"
        errors.print(line, soft_wrap=True)


def _show(settings: Settings, database: Database, count: int) -> None:
    """The table, the picture and what to type next."""
    from babylon_assets.orchestration.assets.model_checkpoints import draw_curve

    with database.connect() as conn:
        rows = windows.list_windows(conn)[-count:]
        names = policy_names(conn, settings.model_name)
        standings = verdicts.standings(conn, settings.model_name)
    picture = settings.home / "learning_curve.svg"
    picture.write_text(draw_curve(rows, standings), encoding="utf-8")
    output.print(window_table(rows, names))
    output.print(f"learning curve: {picture}", highlight=False, soft_wrap=True)
    output.print("next:", bold("make up"), "shows the same windows, runs and pictures in the Dagster UI")
