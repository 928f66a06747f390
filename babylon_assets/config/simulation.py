"""How the simulated game is played."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable


class SimulationSettings(Group):
    """How the simulated game is played."""

    seed: Annotated[int, Ge(0)] = variable("SIMULATION_SEED", 0, "Seed of the simulated game.")
    rooms: Annotated[int, Ge(1)] = variable(
        "SIMULATION_ROOMS", 4, "Markets that the simulated game plays side by side."
    )
    agents_per_room: Annotated[int, Ge(2)] = variable(
        "SIMULATION_AGENTS_PER_ROOM", 8, "Agents that see the same board."
    )
    ticks: Annotated[int, Ge(1), Le(3600)] = variable("SIMULATION_TICKS", 16, "Ticks per room and window.")
    key: str | None = variable(
        "SIMULATION_KEY", None, "Key of the simulated players, where the gateway wants one.", secret=True
    )
