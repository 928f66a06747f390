"""What the players of the simulated market are asked, tick by tick, and the expert's answers to it.

The expert plays, so that accounts and open positions are those of a game. At each tick every player of every room is
asked; those of a room share what the prompt says of the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from babylon_assets.config.settings import Settings
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.accounts import Player
from babylon_assets.environments.simulated.market import board_rng, draw_room
from babylon_assets.environments.simulated.play import Reply, Turn, play
from babylon_assets.environments.simulated.reference import expert_order
from babylon_assets.environments.simulated.styles import clock_of, style_of

WINDOW = "2026-10-01T00:00"


@dataclass(frozen=True, slots=True)
class MarketQuestion:
    """A conversation, the expert's answer to it, and the board that players of the same group share."""

    messages: list[Message]
    answer: str
    group: str


def draw_questions(settings: Settings, count: int) -> list[MarketQuestion]:
    """The first questions of a window, in the order in which the market asks them.

    Raises:
        ValueError: the settings' rooms, players and ticks make fewer.
    """
    clock, style = clock_of(settings), style_of(settings)
    simulation = settings.simulation
    rng = board_rng(simulation.seed, WINDOW, room=0, tick=2**18)
    rooms = [draw_room(simulation.seed, WINDOW, room, clock) for room in range(clock.rooms)]
    players = seat_players(settings)

    def choose(turns: Sequence[Turn]) -> list[Reply]:
        return [Reply(expert_order(turn.board, rng)) for turn in turns]

    questions = [
        MarketQuestion(
            move.turn.messages,
            style.answer(move.turn.board, move.reply.order),
            f"{move.turn.board.room}-{move.turn.board.tick}",
        )
        for move in play(rooms, players, choose, style.prompt)
        if move.reply.order is not None
    ]
    if len(questions) < count:
        raise ValueError(f"a window of these settings has {len(questions)} questions, not {count}")
    return questions[:count]


def seat_players(settings: Settings) -> list[Player]:
    """The players of a game's rooms, with nothing won or lost yet."""
    simulation = settings.simulation
    return [
        Player(f"{1000 * room + seat:018d}", f"trader-{room}-{seat}", simulation.market_of(room, seat))
        for room in range(simulation.rooms)
        for seat in range(simulation.agents_per_room)
    ]
