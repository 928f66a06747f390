"""Which environments there are, and which one an installation has.

An installed package adds one by an entry point of the group `babylon_assets.environments`: a class that takes the
settings.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from babylon_assets.domain.errors import SettingsError, SourceError, explain_failure
from babylon_assets.environments.base import Environment

if TYPE_CHECKING:
    from babylon_assets.config.settings import Settings

GROUP = "babylon_assets.environments"


def open_environment(settings: Settings) -> Environment:
    """The environment that ENVIRONMENT names; `auto` is the simulated market in the embedded database.

    In another database `auto` is the game that it holds, or the simulated market where that was played into it; Babylon
    where it holds none, or where what it holds may not be read.

    Raises:
        SettingsError: there is none of that name, or its package cannot be loaded.
        TransientError: the database does not answer, so that nobody knows which game it holds.
    """
    name = settings.database.environment
    if name == "auto":
        name = _game_of(settings) if settings.database.url else "simulated"
    return _load(name)(settings)


def environment_of_pages(settings: Settings) -> Environment:
    """The environment that the pages in Dagster's UI speak of; for `auto` the game, and no database is asked."""
    name = settings.database.environment
    return _babylon(settings) if name == "auto" else _load(name)(settings)


#: Games that were found, by the database's address: an installation opens its environment for each unit of work.
_games: dict[str, str] = {}


def _game_of(settings: Settings) -> str:
    """The game in the database of DATABASE_URL; looked for until rows of one were found."""
    from babylon_assets.environments.feed.game import find_game
    from babylon_assets.environments.simulated.environment import holds_simulated_market
    from babylon_assets.ledger.database import open_database

    address = settings.database.url or ""
    if address not in _games:
        try:
            with open_database(settings, begin=False).connect_source() as conn:
                if holds_simulated_market(conn):
                    _games[address] = "simulated"
                    return "simulated"
                game = find_game(conn)
        except SourceError:
            return "babylon"
        if game is None or not game.has_rows:
            return game.name if game else "babylon"
        _games[address] = game.name
    return _games[address]


def environment_names() -> list[str]:
    """The names that ENVIRONMENT may have besides `auto`."""
    return sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})


def _load(name: str) -> Callable[[Settings], Environment]:
    if name in _OWN:
        return _OWN[name]
    for point in entry_points(group=GROUP, name=name):
        try:
            loaded: Callable[[Settings], Environment] = point.load()
        except Exception as error:
            raise SettingsError(
                f"ENVIRONMENT is {name!r}, and {point.value} cannot be loaded ({explain_failure(error)}); "
                "install its package again"
            ) from error
        return loaded
    raise SettingsError(
        f"ENVIRONMENT is {name!r}; set it to auto, {', '.join(environment_names())}, or install the package that has it"
    )


def _babylon(settings: Settings) -> Environment:
    from babylon_assets.environments.babylon.environment import BabylonEnvironment

    return BabylonEnvironment(settings)


def _feed(settings: Settings) -> Environment:
    from babylon_assets.environments.feed.environment import FeedEnvironment

    return FeedEnvironment(settings)


def _simulated(settings: Settings) -> Environment:
    from babylon_assets.environments.simulated.environment import SimulatedEnvironment

    return SimulatedEnvironment(settings)


def _files(settings: Settings) -> Environment:
    from babylon_assets.environments.files.environment import FilesEnvironment

    return FilesEnvironment(settings)


_OWN: dict[str, Callable[[Settings], Environment]] = {
    "babylon": _babylon,
    "feed": _feed,
    "files": _files,
    "simulated": _simulated,
}
