"""Files as an environment: windows hold what `babylon import` put into them, and no database is read beside our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from babylon_assets.domain.rewards import unvalued
from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.environments.base import BaseEnvironment, Connection, SourceWindow

if TYPE_CHECKING:
    import pandas as pd


class FilesEnvironment(BaseEnvironment):
    """Trajectories come from files alone; their rewards come with them."""

    name = "files"
    tables: Mapping[str, str] = {
        "trajectories": "Files of trajectories, which `babylon import` reads.",
        "outcomes": "The rewards that the files have.",
    }

    def has_record(self, conn: Connection) -> bool:
        return False

    def check(self, conn: Connection) -> None:
        return None

    def list_windows(self, conn: Connection, since: str | None = None) -> list[SourceWindow]:
        return []

    def fingerprint(self, conn: Connection, window: str, references: Sequence[str]) -> str:
        return ""

    def read_window(self, conn: Connection, window: str) -> Iterator[TrajectoryRecord | Quarantined]:
        return iter(())

    def value_steps(
        self, conn: Connection, window: str, steps: pd.DataFrame, as_of: datetime | None = None
    ) -> pd.DataFrame:
        return unvalued(steps)
