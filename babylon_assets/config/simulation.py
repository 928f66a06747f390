"""How the simulated game is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import model_validator

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE

#: What is not set where agents are alone: as many boards as an hour has moments.
_ALONE = {"rooms": 1, "agents_per_room": 3, "ticks": 40}


class SimulationSettings(Group):
    """How the simulated game is played."""

    seed: Annotated[int, Ge(0)] = variable("SIMULATION_SEED", 0, "The seed of the simulated game.")
    company: Annotated[Literal["room", "alone"], LOWER_CASE] = variable(
        "SIMULATION_COMPANY",
        "room",
        "Whether the agents of a room see the same boards, or each agent has boards and ticks of its own (`alone`). "
        "Alone, one room of 3 agents plays 40 ticks, unless the settings below say otherwise.",
    )
    rooms: Annotated[int, Ge(1)] = variable(
        "SIMULATION_ROOMS",
        4,
        "How many markets the simulated game plays side by side. A new game of a language model has 8, or 4 in the "
        "game's style, unless this is set.",
    )
    agents_per_room: Annotated[int, Ge(2)] = variable(
        "SIMULATION_AGENTS_PER_ROOM",
        8,
        "How many agents see the same board. In a new game of a language model 4 do, unless this is set.",
    )
    ticks: Annotated[int, Ge(1), Le(3600)] = variable(
        "SIMULATION_TICKS",
        16,
        "How many ticks a room plays in a window. A new game of a language model plays 8, unless this is set.",
    )
    style: Annotated[Literal["terse", "game"], LOWER_CASE] = variable(
        "SIMULATION_STYLE",
        "terse",
        "How the market asks its players: in a few lines, or as the game does (`game`), with five questions, five "
        "companies and 1 to 3 KB of text.",
    )
    expert_windows: Annotated[int, Ge(0)] | None = variable(
        "SIMULATION_EXPERT_WINDOWS",
        None,
        "How many windows of a new game an expert plays, whose answers are imitated. Without it none for the "
        "market's own small model in the terse style, which it was taught, and else as many as have 1,024 answers: 4 "
        "of a language model's, or 8 in the game's style.",
    )
    key: str | None = variable("SIMULATION_KEY", None, "The gateway key of the simulated players.", secret=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_alone(cls, given: Any) -> Any:
        is_alone = isinstance(given, Mapping) and str(given.get("company")).strip().lower() == "alone"
        return {**_ALONE, **given} if is_alone else given

    @property
    def markets(self) -> int:
        """How many markets there are, each with boards of its own: one per room, or one per agent."""
        return self.rooms * self.agents_per_room if self.company == "alone" else self.rooms

    def market_of(self, room: int, seat: int) -> int:
        """The market that an agent plays on."""
        return room * self.agents_per_room + seat if self.company == "alone" else room
