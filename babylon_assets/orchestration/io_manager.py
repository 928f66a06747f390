"""Assets as pandas frames: what a downstream asset or a notebook gets when it takes one of ours as an argument.

    @dg.asset(partitions_def=...)
    def my_report(scored_trajectories: pd.DataFrame) -> ...

The rows come from PostgreSQL at the moment of reading. Writing is the business of the assets themselves.
"""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd

from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger.asset_frames import frame_of
from babylon_assets.orchestration.resources import Installation


class FrameReader(dg.IOManager):
    """Loads an asset's partitions as one frame with a row per trajectory, step, sample or checkpoint."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Our assets write by themselves and hand nothing over; another asset's value has no place here.

        Raises:
            PermanentError: always, when there is a value.
        """
        if obj is not None:
            raise PermanentError(
                f"{context.asset_key.to_user_string()} cannot be written here; give it an IO manager of its own"
            )

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """The frame of the partitions that the reader asks for, in the order of the windows."""
        name = context.asset_key.path[-1]
        chain = self._installation.settings.model_name
        with self._installation.connect() as conn:
            parts = [frame_of(conn, name, window, chain) for window in context.asset_partition_keys]
        return pd.concat(parts, ignore_index=True) if len(parts) != 1 else parts[0]
