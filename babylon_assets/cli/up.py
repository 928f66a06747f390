"""`babylon up`: the Dagster UI, its daemon, the gateway and, if asked for, the simulated game, as child processes."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from babylon_assets.cli.terminal import bold, output, tell_step, waiting
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.site_links import SITE
from babylon_assets.ledger.database import Database

if TYPE_CHECKING:
    from babylon_assets.cli.watch_loop import LoopWatch
    from babylon_assets.orchestration.services import Services


def up(
    simulated: Annotated[
        bool, typer.Option("--simulate", help="Play the simulated game as well; never into a real game's database.")
    ] = False,
    hours: Annotated[int, typer.Option(min=1, help="With --simulate: how many hours back a new game begins.")] = 24,
) -> None:
    """Serve the Dagster UI on loopback with the site beside it, and the gateway, until Ctrl-C.

    Starts the embedded PostgreSQL if none is set, brings our tables up to date, fails runs that a crash left behind,
    and keeps dagster-webserver, dagster-daemon and the gateway ([bold]babylon serve[/]) running: what dies is started
    again, the embedded PostgreSQL as well; what dies six times in a row, without having lived for a minute, ends all.
    The database stays up afterwards. What is trained, promoted or refused meanwhile is said here, and the report in the
    home folder is written anew for the site.

    With [bold]--simulate[/] the game is played as well ([bold]babylon simulate[/]): from some hours ago up to now, as
    fast as the sensors train, so that each window is played by the newest promoted policy, then in step with the clock.
    A game that is there goes on after its newest window.

    Example: [bold]babylon up[/]   (another port: [bold]DAGSTER_PORT=3001 babylon up[/])

    Example: [bold]babylon up --simulate --hours 12[/]
    """
    settings = load_settings()
    from babylon_assets.config.settings import subprocess_environment
    from babylon_assets.ledger.database import WatchedDatabase
    from babylon_assets.orchestration.services import Services, refuse_taken_ports
    from babylon_assets.orchestration.up_lock import only_one, refuse_second_game

    with only_one(settings.home):
        refuse_taken_ports({"DAGSTER_PORT": settings.dagster_port, "GATEWAY_PORT": settings.gateway.port})
        if simulated:
            refuse_second_game(settings.home)
        with waiting("preparing the database"):  # what takes seconds to import is imported while this is said
            database, settings, from_record = _prepare(settings, hours if simulated else None)
        from babylon_assets.orchestration.runtime import dagster_home

        environment = subprocess_environment(settings, database.dagster_url)
        home, ports = dagster_home(settings), (settings.dagster_port, settings.gateway.port)
        tell_step(say_begin(settings, from_record=from_record))
        tell_step("starting Dagster's webserver and daemon, and the gateway")
        with Services(home, ports[0], environment, ports[1], hours if simulated else None) as services:
            services.wait_until_ready(tell_step)
            if not services.stop_requested:
                _say_addresses(settings, services, simulated=simulated)
                Thread(target=_watch(settings, database).run, daemon=True).start()
            services.wait(WatchedDatabase(settings, database), _say)
    output.print("stopped")


def _prepare(settings: Settings, hours: int | None) -> tuple[Database, Settings, bool]:
    """The migrated database without what a crash left, the settings, and whether partitions begin with the record.

    Args:
        hours: how far back a new simulated game begins; None: none is played.
    """
    from babylon_assets.environments.weighted_scorers import check_weights
    from babylon_assets.ledger.database import migrate, open_database
    from babylon_assets.ledger.window_length import check_window_length
    from babylon_assets.orchestration.partitions import beginning_with_the_record
    from babylon_assets.orchestration.runtime import fail_orphaned_runs, open_instance

    database = open_database(settings)
    migrate(database)
    check_window_length(settings, database)
    if hours is not None:
        settings = with_a_game(settings, database, hours)
    check_weights(settings)
    from_record = settings.begins_with_the_record
    settings = beginning_with_the_record(settings, database, datetime.now(UTC))
    with open_instance(settings, database) as instance:
        for run_id in fail_orphaned_runs(instance):
            output.print(f"failed the run {run_id}, whose process was gone")
    return database, settings, from_record


def _say_addresses(settings: Settings, services: Services, *, simulated: bool) -> None:
    output.print("Dagster UI:", bold(services.url), f"  logs: {services.logs}   stop: Ctrl-C")
    output.print("site:", bold(f"{services.url}{SITE}/"), "  checkpoints, samples, agents, comparisons")
    output.print("gateway:", bold(f"http://{settings.gateway.host}:{settings.gateway.port}/v1"))
    if simulated:
        output.print(f"simulated game: {services.logs / 'simulation.log'}")


def with_a_game(settings: Settings, database: Database, hours: int) -> Settings:
    """The settings under which the simulated game is played and trained, with its tables made.

    Unless a backend is named, training and serving are embedded, whatever key there is: as of `babylon demo`.

    Raises:
        PermanentError: the database holds a game that is not simulated, or one with other boards.
    """
    from babylon_assets.cli.simulate import prepare_game, starting_back
    from babylon_assets.cli.simulated_game import as_begun, serving_the_game

    settings = as_begun(settings)
    prepare_game(settings, database)
    backend = "embedded" if settings.training.backend == "auto" else settings.training.backend
    return starting_back(
        serving_the_game(settings.replace(training_backend=backend, environment="simulated")), database, hours
    )


def say_begin(settings: Settings, *, from_record: bool) -> str:
    """Where the partitions begin, and why there."""
    first = f"partitions begin at {settings.window_start}"
    if not from_record:
        return first
    if settings.window_start >= settings.windows.of(datetime.now(UTC)).id:
        return f"{first}, the window that is running: no window before it has a record"
    return f"{first}, where the record begins; WINDOWS_FROM sets another window"


def _watch(settings: Settings, database: Database) -> LoopWatch:
    from babylon_assets.cli.watch_loop import LoopWatch
    from babylon_assets.cli.write_report import write_for_site

    return LoopWatch(settings, database, _say, partial(write_for_site, settings, database))


def _say(text: str) -> None:
    output.print(f"{datetime.now():%H:%M:%S} {text}", highlight=False, markup=False, soft_wrap=True)
