"""`babylon simulate`: the simulated game, played through the gateway beside a loop that `babylon up` keeps going.

It writes the game's own tables and our record of the calls, as a game does; reading, training and promoting is left to
the sensors. What was played is in those tables and nowhere else: a process that is killed goes on there.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from babylon_assets.cli.simulated_game import (
    as_begun,
    create_tables,
    play_once,
    refuse_another_environment,
    refuse_another_game,
    remember_game,
)
from babylon_assets.cli.terminal import output, show_log, waiting
from babylon_assets.cli.train import FINISHED, reaching
from babylon_assets.config.network import is_this_machine
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import SettingsError, TransientError
from babylon_assets.domain.windows import Window
from babylon_assets.ledger import verdicts
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.windows import get_window

if TYPE_CHECKING:
    from babylon_assets.serving.client import GatewayPolicy

#: A window is played so long before its end: it is there when the window is over, and no row of it is late.
BEFORE_END = timedelta(minutes=2)
#: How long windows that are over wait for the line; a window that is given up must not stop the game.
WAIT_SECONDS = 600.0
LOOK_SECONDS = 1.0
#: Pauses after the gateway or the database did not answer.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)

_log = logging.getLogger(__name__)


def simulate(
    hours: Annotated[int, typer.Option(min=1, help="How many hours back a new game begins.")] = 24,
) -> None:
    """Play the simulated game through the gateway that runs, until Ctrl-C.

    A new game begins some hours ago; one that is there goes on after its newest window. Windows that are over are
    played one after another, each when the one before it is trained and has its verdict, so that the newest promoted
    policy plays; after ten minutes without that, it goes on with the policy that is served. With AUTOMATION off it does
    not wait. Then each window is played two minutes before its end. [bold]babylon up --simulate[/] runs this beside
    the loop. One process at a time plays the game of a home.

    Example: [bold]babylon simulate --hours 12[/]
    """
    settings = as_begun(load_settings())
    show_log(settings.log_level)
    refuse_open_key(settings)
    with waiting("preparing the game"):
        from babylon_assets.ledger.database import migrate, open_database
        from babylon_assets.ledger.window_length import check_window_length
        from babylon_assets.orchestration.up_lock import only_game
        from babylon_assets.serving.client import GatewayPolicy

        database = open_database(settings, begin=False)
        migrate(database)
        check_window_length(settings, database)
        prepare_game(settings, database)
    key = settings.simulation.key or "none-needed"
    with only_game(settings.home), GatewayPolicy(gateway_url(settings), settings.model_name, key) as players:
        Game(settings, database, players, hours).run()


def refuse_open_key(settings: Settings) -> None:
    """Refuse to send the players' key to a gateway on another machine: it speaks http.

    Raises:
        SettingsError: it would be sent there.
    """
    if settings.simulation.key and not settings.keys_over_http and not is_this_machine(settings.gateway.host):
        raise SettingsError(
            "GATEWAY_HOST is another machine, and SIMULATION_KEY would be sent there for everybody on the way to read; "
            "play beside the gateway, or set KEYS_OVER_HTTP=true where the network between is trusted"
        )


def prepare_game(settings: Settings, database: Database) -> None:
    """The game's tables, where they are missing, and a note of what its boards follow from.

    Raises:
        PermanentError: ENVIRONMENT is another one, or the database holds a game that is not simulated, or other boards.
    """
    refuse_another_environment(settings)
    refuse_another_game(settings)
    create_tables(database)
    remember_game(settings)


def gateway_url(settings: Settings) -> str:
    """Where this machine reaches the gateway of the settings."""
    host = settings.gateway.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{settings.gateway.port}/v1"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{f'[{host}]' if address.version == 6 else host}:{settings.gateway.port}/v1"


def starting_back(settings: Settings, database: Database, hours: int) -> Settings:
    """The settings with the game's first window as the first one, or an earlier one that was set."""
    from babylon_assets.environments.simulated.game_state import oldest_played

    with database.connect() as conn:
        oldest = oldest_played(conn, settings.windows)
    first = (oldest or first_window(settings, datetime.now(UTC), hours)).id
    return settings.replace(window_start=first) if settings.begins_with_the_record else reaching(settings, first)


def first_window(settings: Settings, now: datetime, hours: int) -> Window:
    """Where a new game begins: so many hours back, and at least with the last closed window."""
    running = settings.windows.of(now)
    back = timedelta(minutes=60 * hours)
    return min(settings.windows.of(running.start - back), running.previous())


class Game:
    """The game and the clock: which window is played next, and when.

    Args:
        hours: how far back a game begins that has no window yet.
    """

    def __init__(self, settings: Settings, database: Database, players: GatewayPolicy, hours: int) -> None:
        self._settings, self._database, self._players, self._hours = settings, database, players, hours
        self._waits_for: tuple[str, float] | None = None
        self._next: str | None = None

    def run(self) -> None:
        """Play for ever; a gateway or a database that does not answer is asked again.

        Raises:
            PermanentError: the gateway refuses the players.
        """
        failures = 0
        while True:
            try:
                pause, failures = self.step(datetime.now(UTC)), 0
            except TransientError as error:
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                _log.warning("%s; trying again in %.0f s", error, pause)
            time.sleep(pause)

    def step(self, now: datetime) -> float:
        """Play the next window if it is due, and say how many seconds to wait before the next look.

        Raises:
            TransientError: the gateway or the database does not answer; nothing was written.
        """
        from babylon_assets.environments.simulated.game_state import newest_played

        with self._database.connect() as conn:
            newest = newest_played(conn, self._settings.windows)
            window = first_window(self._settings, now, self._hours) if newest is None else newest.next()
            early = (window.end - BEFORE_END - now).total_seconds()
            if early > 0:
                if window.id != self._next:
                    self._next = window.id
                    output.print(f"next: {window} at {window.end - BEFORE_END:%H:%M} UTC, just before it ends")
                return min(early, 60.0)
            if newest is not None and window.end <= now and self._waits(conn, newest.id):
                return LOOK_SECONDS
            played = play_once(self._settings, conn, self._players, window.id)
        if played is not None:
            output.print(
                f"{window}  {played.answers} answers of {self._players.name}, {played.valid:.0%} valid, "
                f"{played.seconds:.1f} s",
                highlight=False,
            )
        return 0.0

    def _waits(self, conn: Connection, window: str) -> bool:
        """Whether the policy that comes of this window is still to be waited for."""
        if not self._settings.automation.enabled or is_through(conn, self._settings, window):
            return False
        if self._waits_for is None or self._waits_for[0] != window:
            self._waits_for = (window, time.monotonic())
        waited = time.monotonic() - self._waits_for[1]
        if waited < WAIT_SECONDS:
            return True
        _log.warning("%s is not trained after %.0f s: the served policy plays the next window", window, waited)
        return False


def is_through(conn: Connection, settings: Settings, window: str) -> bool:
    """Whether the line has said all of a window; one that failed may be tried again, and is not waited for.

    One that was trained and whose outcomes came in since has a newer dataset, and its checkpoint stays.
    """
    row = get_window(conn, window)
    if row is None or row.status == "open":
        return False
    if not settings.training.enabled:
        return True
    left = verdicts.without_verdict(conn, settings.model_name)
    ended = row.status in (*FINISHED, "failed") or row.checkpoint_id is not None
    return ended and (left is None or left.window_id != window)
