"""How the simulated game is played."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable


class SimulationSettings(Group):
    """How the simulated game is played."""

    seed: Annotated[int, Ge(0)] = variable("SIMULATION_SEED", 0, "The seed of the simulated game.")
    rooms: Annotated[int, Ge(1)] = variable(
        "SIMULATION_ROOMS", 4, "How many markets the simulated game plays side by side."
    )
    agents_per_room: Annotated[int, Ge(2)] = variable(
        "SIMULATION_AGENTS_PER_ROOM", 8, "How many agents see the same board."
    )
    ticks: Annotated[int, Ge(1), Le(3600)] = variable(
        "SIMULATION_TICKS", 16, "How many ticks a room plays in a window."
    )
    expert_windows: Annotated[int, Ge(0)] | None = variable(
        "SIMULATION_EXPERT_WINDOWS",
        None,
        "How many windows of a new game an expert plays, whose answers are imitated. Without it none for the "
        "market's own small model and 4 for any other.",
    )
    key: str | None = variable("SIMULATION_KEY", None, "The gateway key of the simulated players.", secret=True)
