"""The simulated market as an environment: it is played into Babylon's tables and read as the game is."""

from __future__ import annotations

from babylon_assets.environments.babylon.environment import BabylonEnvironment


class SimulatedEnvironment(BabylonEnvironment):
    """The market of the demo."""

    name = "simulated"
