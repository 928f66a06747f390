"""How the simulated market asks its players and reads their answers: SIMULATION_STYLE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from babylon_assets.config.settings import Settings
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated import language
from babylon_assets.environments.simulated.game_style import (
    GAME_ANSWER_TOKENS,
    answer_as_the_game,
    ask_as_the_game,
    read_as_the_game,
)
from babylon_assets.environments.simulated.language import Account
from babylon_assets.environments.simulated.market import Board, Clock, Order


@dataclass(frozen=True, slots=True)
class Style:
    """A form of prompts and answers.

    Attributes:
        is_wide: its boards have five markets and five companies instead of two and two.
        answer_tokens: the longest answer.
        prompt: the conversation that asks a player for an order.
        answer: a well-formed answer, as the expert gives it.
        parse: reads an answer; raises InvalidOrderError.
    """

    name: str
    is_wide: bool
    answer_tokens: int
    prompt: Callable[[Board, Account], list[Message]]
    answer: Callable[[Board, Order], str]
    parse: Callable[[str, Board], Order]


def _answer_tersely(board: Board, order: Order) -> str:
    return language.answer(board.news, order)


TERSE = Style("terse", False, language.ANSWER_TOKENS, language.prompt, _answer_tersely, language.parse_order)
GAME = Style("game", True, GAME_ANSWER_TOKENS, ask_as_the_game, answer_as_the_game, read_as_the_game)
STYLES = {style.name: style for style in (TERSE, GAME)}


def style_of(settings: Settings) -> Style:
    """The style that SIMULATION_STYLE names."""
    return STYLES[settings.simulation.style]


def clock_of(settings: Settings) -> Clock:
    """When the ticks of the game's rooms happen, and how wide their boards are."""
    simulation = settings.simulation
    return Clock(simulation.markets, simulation.ticks, settings.windows, style_of(settings).is_wide)
