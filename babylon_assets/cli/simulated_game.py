"""What every command that plays the simulated game shares: where it may be written, that it stays one game, and how a
window of it is played. Which windows, and what becomes of them, is decided by the commands.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.environments.simulated.game_file import go_on_with_game, note_game, read_base_model, read_game
from babylon_assets.ledger import windows
from babylon_assets.ledger.database import Connection, Database, game_lock
from babylon_assets.training.model_sources import is_source, require_source, source_folder

if TYPE_CHECKING:
    from babylon_assets.environments.simulated.players import PlayedWindow
    from babylon_assets.serving.client import GatewayPolicy

#: How a language model plays where the settings do not say: it answers more slowly than the small model, and of 256
#: answers a window it learns more on 64 boards than on 32. In the game's style there are companies for half the rooms.
LANGUAGE_MODEL_GAME = {"rooms": 8, "agents_per_room": 4, "ticks": 8}


def serving_the_game(settings: Settings) -> Settings:
    """The settings of a gateway that all players of a moment ask at once, and that records every answer."""
    at_once = settings.simulation.rooms * settings.simulation.agents_per_room
    return settings.replace(
        gateway_record=True,
        gateway_queue=max(settings.gateway.queue, at_once),
        gateway_address_connections=max(settings.gateway.address_connections, 2 * at_once),
        gateway_key_concurrency=max(settings.gateway.key_concurrency, at_once),
    )


def as_begun(settings: Settings) -> Settings:
    """The settings as they were read, and where they say nothing of the game, what it was begun with.

    A new game of a language model has more boards with fewer players, as of `LANGUAGE_MODEL_GAME`.
    """
    alone = settings.simulation.company == "alone"
    if alone or read_game(settings.home) or not _is_new_to_the_market(settings.training.base_model):
        return go_on_with_game(settings)
    from babylon_assets.environments.simulated.market import most_rooms
    from babylon_assets.environments.simulated.styles import style_of

    rooms = min(LANGUAGE_MODEL_GAME["rooms"], most_rooms(style_of(settings).is_wide))
    suited = {**LANGUAGE_MODEL_GAME, "rooms": rooms}
    unset = {name: count for name, count in suited.items() if name not in settings.simulation.model_fields_set}
    return settings.replace(**{f"simulation_{name}": count for name, count in unset.items()})


def _is_new_to_the_market(base: str | Path | None) -> bool:
    from babylon_assets.environments.simulated.base_model import was_taught

    return base is not None and not was_taught(Path(base))


def refuse_another_environment(settings: Settings) -> None:
    """Refuse to play the simulated market where the record of another environment is read.

    Raises:
        PermanentError: ENVIRONMENT names another one.
    """
    environment = settings.database.environment
    if environment not in ("auto", "simulated"):
        raise PermanentError(
            f"ENVIRONMENT is {environment}, and the simulated market would be written into its record; "
            "play it in another folder with BABYLON_HOME, and with ENVIRONMENT=simulated"
        )


def refuse_another_game(settings: Settings) -> None:
    """Refuse to go on with a game that was begun with other boards: its open bets would point at nothing.

    A base model that a folder has to be made of is refused as well, before it is fetched: see `refuse_another_base`.

    Raises:
        PermanentError: it names what differs.
    """
    begun = read_game(settings.home)
    begun = {"simulation_style": "terse", **begun} if begun else {}
    differ = [f"{name} {begun[name]}" for name, value in _game(settings).items() if begun.get(name, value) != value]
    if differ:
        raise PermanentError(
            f"the game in {settings.home} was begun with {', '.join(differ)}; go on with that, or begin another one "
            "in another folder with BABYLON_HOME"
        )
    base_model = settings.training.base_model
    if begun and base_model is not None and is_source(base_model):
        require_source(base_model)
        refuse_another_base(settings, str(source_folder(settings.home, base_model)))


def refuse_another_base(settings: Settings, base: str) -> None:
    """Refuse to go on with a game in which another base model has learned.

    Raises:
        PermanentError: it names both.
    """
    noted = read_game(settings.home).get("base_model", base)
    if Path(noted).name != Path(base).name:
        raise PermanentError(
            f"the game in {settings.home} was begun with the base model {Path(noted).name}, and this one is "
            f"{Path(base).name}; leave BASE_MODEL out, or begin another game in another folder with BABYLON_HOME"
        )


def remember_game(settings: Settings, base: str | None = None) -> None:
    """Note what the boards follow from, for `refuse_another_game`, and the folder of the base model that learns."""
    note_game(settings.home, {**_game(settings), **({"base_model": base} if base else {})})


def _game(settings: Settings) -> dict[str, int | str]:
    """What the boards of the simulated game follow from; it must stay the same for as long as a game goes on."""
    return {
        "simulation_seed": settings.simulation.seed,
        "simulation_rooms": settings.simulation.rooms,
        "simulation_agents_per_room": settings.simulation.agents_per_room,
        "simulation_company": settings.simulation.company,
        "simulation_ticks": settings.simulation.ticks,
        "simulation_style": settings.simulation.style,
    }


def create_tables(database: Database) -> None:
    """Create the game's tables where they are missing.

    Raises:
        PermanentError: DATABASE_URL points at a game that is not simulated, or our tables lie elsewhere; nothing is
            written.
    """
    if database.is_apart:
        raise PermanentError(
            "the simulated game is played into the database of our tables; unset LEDGER_DATABASE_URL to play it"
        )
    from babylon_assets.environments.babylon.game_tables import create_game_tables

    with database.connect() as conn:
        if not database.embedded and _has_users(conn) and not any(row.reference for row in windows.list_windows(conn)):
            raise PermanentError(
                f"{database.place} holds a game that is not simulated, and the simulated one would be written into it; "
                "unset DATABASE_URL to use the embedded database, or point it at an empty one"
            )
        create_game_tables(conn)


def _has_users(conn: Connection) -> bool:
    there = conn.execute("""SELECT to_regclass('public."User"')""").fetchone()
    if there is None or there[0] is None:
        return False
    return conn.execute('SELECT 1 FROM public."User" LIMIT 1').fetchone() is not None


def expert_plays(settings: Settings, conn: Connection) -> bool:
    """Whether the next window is one of the first, which an expert plays for a base model that is new to the game."""
    played = sum(row.reference is not None for row in windows.list_windows(conn))
    return played < _expert_windows(settings)


def _expert_windows(settings: Settings) -> int:
    from babylon_assets.environments.simulated.expert_players import EXPERT_ANSWERS

    if settings.simulation.expert_windows is not None:
        return settings.simulation.expert_windows
    base = settings.training.base_model or read_base_model(settings.home)
    knows_form = settings.simulation.style == "terse" and not _is_new_to_the_market(base)
    simulation = settings.simulation
    answers = simulation.rooms * simulation.agents_per_room * simulation.ticks
    return 0 if knows_form else math.ceil(EXPERT_ANSWERS / answers)


def play_once(settings: Settings, conn: Connection, players: GatewayPolicy, window: str) -> PlayedWindow | None:
    """Play a window with the served policy, or one of the first with the expert; None if it was played before.

    One transaction, committed here.

    A lock keeps two processes from playing at the same time; it ends with the transaction, or with the process.
    """
    from babylon_assets.environments.simulated.expert_players import ExpertPlayers
    from babylon_assets.environments.simulated.game_state import is_played
    from babylon_assets.environments.simulated.players import play_window
    from babylon_assets.serving.policy_registry import promoted_checkpoint

    game_lock(conn)
    if is_played(conn, settings.windows.parse(window)):
        return None
    if expert_plays(settings, conn):
        players.name = ExpertPlayers.name
        played = play_window(settings, conn, window, ExpertPlayers())
    else:
        served = promoted_checkpoint(conn, settings.model_name)
        players.name = policy_name(settings.model_name, served.step if served else 0)
        played = play_window(settings, conn, window, players)
    conn.commit()
    return played
