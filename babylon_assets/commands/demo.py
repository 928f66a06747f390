"""`babylon demo`: the simulated game, played and trained hour by hour, from nothing to a learning curve.

Each window is played with the live policy, which a gateway of the demo's own serves over HTTP, and then run through the
line as a recorded Dagster run. A window is played in one transaction and trained at most once, so that a killed demo
goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from babylon_assets.commands.judging import standing
from babylon_assets.commands.terminal import errors, number, output, progress, share_callback
from babylon_assets.commands.train import finished, opened_line, reaching, refuse_running
from babylon_assets.commands.windows import policy_names, window_table
from babylon_assets.core.errors import PermanentError
from babylon_assets.core.policies import policy_name
from babylon_assets.core.windows import closed_windows, window_bounds
from babylon_assets.settings import Settings, load_settings
from babylon_assets.store import verdicts, windows
from babylon_assets.store.database import Connection, Database
from babylon_assets.store.windows import WindowRow

if TYPE_CHECKING:
    from babylon_assets.automation.line import Line
    from babylon_assets.serving.client import GatewayPolicy

#: What the boards of the simulated game follow from; it must stay the same for as long as a game goes on.
GAME = ("simulation_seed", "simulation_rooms", "simulation_agents_per_room", "simulation_ticks")


def demo(
    count: Annotated[int, typer.Option("--windows", min=1, help="How many of the last closed hours to play.")] = 24,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the game, instead of SIMULATION_SEED.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="HOUR", help="The last hour to play, instead of the last closed one.")
    ] = None,
) -> None:
    """Play and train the last closed hours of a simulated game, and show what was learned.

    Needs nothing but this installation: PostgreSQL, the game and the base model are made on first use. A second call
    goes on where the first stopped. The same hours, seed and settings give the same checkpoints.

    Example: [bold]babylon demo --windows 6[/]
    """
    settings = replace(load_settings(), backend="embedded")  # what plays is trained here, whatever key there is
    settings = settings if seed is None else replace(settings, simulation_seed=seed)
    refuse_another_game(settings)
    wanted = hours(count, until)
    with opened_line(reaching(settings, wanted[0])) as (database, line):
        create_tables(database)
        waiting = unfinished(database, line, settings, wanted)
        if waiting:
            base = _base_model(settings)
            remember_game(settings)
            with _players(settings, database, base) as players:
                _play_and_train(settings, database, line, players, waiting)
        else:
            output.print(f"the {count} hours up to {wanted[-1]} are done; the next one can be played when it is over")
        _show(settings, database, max(count, len(waiting)))


def hours(count: int, until: str | None) -> list[str]:
    """The last closed hours, or those up to a given one, oldest first.

    Raises:
        PermanentError: the given hour is no window or not over yet.
    """
    if until is None:
        return closed_windows(datetime.now(UTC), count)
    refuse_running(until)
    return closed_windows(window_bounds(until)[1], count)


def refuse_another_game(settings: Settings) -> None:
    """Refuse to go on with a game that was begun with other boards: its open bets would point at nothing.

    Raises:
        PermanentError: it names what differs.
    """
    path = settings.home / "game.json"
    begun = json.loads(path.read_text()) if path.is_file() else {}
    differ = [f"{name} {begun[name]}" for name in GAME if name in begun and begun[name] != getattr(settings, name)]
    if differ:
        raise PermanentError(
            f"the game in {settings.home} was begun with {', '.join(differ)}; go on with that, or begin another one "
            "in another folder with BABYLON_HOME"
        )


def remember_game(settings: Settings) -> None:
    """Note what the boards follow from, for `refuse_another_game`."""
    path = settings.home / "game.json"
    path.write_text(json.dumps({name: getattr(settings, name) for name in GAME}))


def create_tables(database: Database) -> None:
    """Create the game's tables where they are missing.

    Raises:
        PermanentError: DATABASE_URL points at a game that is not simulated; nothing is written into that.
    """
    from babylon_assets.game.fixture import create_game_tables

    with database.connect() as conn:
        if not database.embedded and _has_users(conn) and not any(row.reference for row in windows.list_windows(conn)):
            raise PermanentError(
                f"{database.place} holds a game that is not simulated, and the demo would write into it; "
                "unset DATABASE_URL to use the embedded database, or point it at an empty one"
            )
        create_game_tables(conn)


def _has_users(conn: Connection) -> bool:
    there = conn.execute("""SELECT to_regclass('public."User"')""").fetchone()
    if there is None or there[0] is None:
        return False
    return conn.execute('SELECT 1 FROM public."User" LIMIT 1').fetchone() is not None


def unfinished(database: Database, line: Line, settings: Settings, wanted: Iterable[str]) -> list[str]:
    """Played windows that are not finished, then the wanted ones after the newest played; oldest first.

    Time goes forward: an hour before one that was played is not played any more.
    """
    with database.connect() as conn:
        rows = {row.window_id: row for row in windows.list_windows(conn)}
    played = sorted(window for window, row in rows.items() if row.reference is not None)
    recorded = line.materialized()
    left = [window for window in played if window not in recorded or not finished(rows[window], settings)]
    return left + [window for window in wanted if not played or window > played[-1]]


def _base_model(settings: Settings) -> str:
    from babylon_assets.settings import prepare_libraries

    prepare_libraries(settings)
    from babylon_assets.training.roots import base_model_of

    with progress() as bar:
        return base_model_of(settings, share_callback(bar))


@contextmanager
def _players(settings: Settings, database: Database, base: str) -> Iterator[GatewayPolicy]:
    """The simulated players as clients of a gateway, which is started for them and stopped with the demo."""
    from babylon_assets.serving.client import GatewayPolicy
    from babylon_assets.serving.process import GatewayProcess
    from babylon_assets.settings import subprocess_environment

    at_once = settings.simulation_rooms * settings.simulation_agents_per_room
    own = replace(
        settings,
        base_model=base,
        gateway_engine="embedded",
        gateway_keys={},
        gateway_record=True,
        gateway_queue=max(settings.gateway_queue, at_once),
        gateway_key_concurrency=max(settings.gateway_key_concurrency, at_once),
        canary_share=0.0,
    )
    environment = subprocess_environment(own, database.dagster_url)
    with GatewayProcess(own, environment) as gateway, GatewayPolicy(gateway.url, settings.model_name) as players:
        yield players


def _play_and_train(
    settings: Settings, database: Database, line: Line, players: GatewayPolicy, waiting: list[str]
) -> None:
    with progress("{task.fields[samples]} samples", "reward {task.fields[reward]}", "{task.fields[took]}") as bar:
        task = bar.add_task("playing", total=len(waiting), samples="-", reward="-", took="-")
        for window in waiting:
            bar.update(task, description=window)
            started = time.monotonic()
            with database.connect() as conn:
                play_once(settings, conn, players, window)
            line.materialize(window)
            with database.connect() as conn:
                row = windows.get_window(conn, window)
                judged = standing(conn, settings.model_name, window)
            _advance(bar, task, row, judged, time.monotonic() - started)


def play_once(settings: Settings, conn: Connection, players: GatewayPolicy, window: str) -> None:
    """Play a window with the live policy, unless it was played before; one transaction, committed here."""
    from babylon_assets.game.simulated import is_played
    from babylon_assets.serving.directory import live
    from babylon_assets.simulation.players import play_window

    if is_played(conn, window):
        return
    made = live(conn, settings.model_name)
    players.name = policy_name(settings.model_name, made.step if made else 0)
    play_window(settings, conn, window, players)
    conn.commit()


def _advance(bar: Progress, task: TaskID, row: WindowRow | None, judged: str | None, seconds: float) -> None:
    """One window further; where no bar can be drawn, a line says so."""
    samples, reward = (row.samples, number(row.reward_mean)) if row else (0, "-")
    bar.update(task, advance=1, samples=samples, reward=reward, took=f"{seconds:.1f} s")
    if not errors.is_terminal and row is not None:
        said = f"{row.window_id}  {row.status}  {samples} samples  reward {reward}  {judged or '-'}  {seconds:.1f} s"
        errors.print(said, soft_wrap=True)


def _show(settings: Settings, database: Database, count: int) -> None:
    """The table, the picture and what to type next."""
    from babylon_assets.assets.model_checkpoints import curve_points
    from babylon_assets.plots import learning_curve

    with database.connect() as conn:
        rows = windows.list_windows(conn)[-count:]
        names = policy_names(conn, settings.model_name)
        standings = verdicts.standings(conn, settings.model_name)
    picture = settings.home / "learning_curve.png"
    picture.write_bytes(learning_curve(curve_points(rows, standings)))
    output.print(window_table(rows, names))
    output.print(f"learning curve: {picture}", highlight=False, soft_wrap=True)
    output.print("next: [bold]make up[/] shows the same windows, runs and pictures in the Dagster UI")
