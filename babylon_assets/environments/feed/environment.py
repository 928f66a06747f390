"""Feed as an environment: Babylon's record with more in it, and another arithmetic of bets and perpetuals."""

from __future__ import annotations

from collections.abc import Mapping

from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.feed.game import FEED_GAME


class FeedEnvironment(BabylonEnvironment):
    """The game's tables as Drizzle made them."""

    name = "feed"
    game = FEED_GAME
    tables: Mapping[str, str] = {
        "trajectories": """
The game's table `trajectories`: what its agents and its NPCs saw, answered and did, a tick a row. A row belongs to the
hour of its `windowId`, or of its end where it has none; where windows are no hours, to the one of its end.

Written by the game, read by `raw_trajectories`. Observed when a sensor finds the window to be run: how many rows of how
many agents there are, when the newest was written, and by how much the window is overdue, if nothing of it was read.
""",
        "outcomes": """
What became of the trades: the game's tables `Market` and `Position`, beside its prices and its agents' trades.

Written by the game, minutes to days after the window as well, and read by `scored_trajectories`. Observed when a sensor
finds the window to be run: markets that end in the window and those of them that are resolved.
""",
    }
