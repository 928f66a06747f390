"""The simulated market as an environment: it is played into Babylon's tables and read as the game is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from babylon_assets.config.settings import Settings
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.base import AnswerReader, Benchmark, Connection, Progress
from babylon_assets.environments.simulated.game_file import go_on_with_game, read_base_model
from babylon_assets.environments.simulated.rows import COMPANY_MARK


class SimulatedEnvironment(BabylonEnvironment):
    """The market of the demo: it judges policies by boards of its own, and makes the small model that plays it."""

    name = "simulated"

    def __init__(self, settings: Settings) -> None:
        super().__init__(go_on_with_game(settings))

    #: Each board has news of its own.
    state_seconds = 0.0
    trajectory_is_tick = False
    gate_asks_prompts = False  # its boards say more of a policy than its recorded prompts

    def list_losses(self, conn: Connection) -> list[str]:
        """None: tables that the market does not play into are of the real games alone."""
        return []

    def name_market(self, market_id: str) -> str:
        """As answers name it: by its slot on the board, or by its question where boards are wide."""
        from babylon_assets.environments.simulated.market import SLOTS, slot_index
        from babylon_assets.environments.simulated.questions import question
        from babylon_assets.environments.simulated.styles import style_of

        index = slot_index(market_id)
        if index is None:
            return super().name_market(market_id)
        if style_of(self.settings).is_wide:
            return f'"{question(market_id)}"'
        return SLOTS[index] if index < len(SLOTS) else market_id

    @property
    def benchmark(self) -> Benchmark | None:
        from babylon_assets.environments.simulated.market_evaluation import MarketBenchmark

        return MarketBenchmark(self.settings)

    @property
    def answers(self) -> AnswerReader | None:
        from babylon_assets.environments.simulated.board_answers import BoardAnswers

        return BoardAnswers(self)

    def find_base_model(self, home: Path) -> Path | None:
        """The one that the game was begun with, or the small one if it was made."""
        noted = read_base_model(home)
        if noted is not None:
            return noted
        measurements = sorted((home / "base_models").glob("babylon-small-*/measurement.json"))
        return measurements[-1].parent if measurements else None

    def make_base_model(
        self, home: Path, open_policy: Callable[[Path], Policy], progress: Progress | None = None
    ) -> Path | None:
        from babylon_assets.environments.simulated.base_model import ensure_base_model

        noted = read_base_model(home)
        if noted is not None:
            return noted
        return ensure_base_model(home, open_policy=open_policy, progress=progress)


def holds_simulated_market(conn: psycopg.Connection[Any]) -> bool:
    """Whether the simulated market was played into a database: its companies say so."""
    there = conn.execute("SELECT to_regclass('public.\"Organization\"') IS NOT NULL").fetchone()
    if there != (True,):
        return False
    query = 'SELECT EXISTS (SELECT FROM public."Organization" WHERE description LIKE %s)'
    return conn.execute(query, [f"%{COMPANY_MARK}"]).fetchone() == (True,)
