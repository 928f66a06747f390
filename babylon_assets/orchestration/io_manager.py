"""Assets as pandas frames: what a downstream asset or a notebook gets when it takes one of ours as an argument.

    @dg.asset(partitions_def=...)
    def my_report(scored_trajectories: pd.DataFrame) -> ...

The rows come from PostgreSQL at the moment of reading. Writing is the business of the assets themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import dagster as dg
import pandas as pd

from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import checkpoints, datasets, evaluations, promotions, scores, trajectories, windows
from babylon_assets.ledger.database import Connection
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


def frame_of(conn: Connection, asset: str, window: str, chain: str) -> pd.DataFrame:
    """One partition of one of the assets as a frame; a window that has nothing gives no rows."""
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        "raw_trajectories": lambda: trajectories.raw_frame(conn, window),
        "scored_trajectories": lambda: scores.read_scores(conn, window),
        "training_datasets": lambda: _dataset_frame(conn, window),
        "model_checkpoints": lambda: _checkpoint_frame(conn, window, chain),
        "checkpoint_evaluations": lambda: _evaluation_frame(conn, window, chain),
        "promoted_model": lambda: _promotion_frame(conn, window, chain),
    }
    return readers[asset]()


def _dataset_frame(conn: Connection, window: str) -> pd.DataFrame:
    row = windows.get_window(conn, window)
    return pd.DataFrame() if row is None or row.dataset_id is None else datasets.dataset_frame(conn, row.dataset_id)


def _evaluation_frame(conn: Connection, window: str, chain: str) -> pd.DataFrame:
    """A row per evaluation of the window's checkpoint."""
    checkpoint = checkpoints.by_window(conn, chain, window)
    return pd.DataFrame(
        [asdict(row) for row in evaluations.of_checkpoint(conn, checkpoint.id)] if checkpoint is not None else []
    )


def _promotion_frame(conn: Connection, window: str, chain: str) -> pd.DataFrame:
    """A row per promotion of the window's checkpoint, rollbacks to it included."""
    checkpoint = checkpoints.by_window(conn, chain, window)
    rows = promotions.history(conn, chain) if checkpoint is not None else []
    return pd.DataFrame([asdict(row) for row in rows if checkpoint is not None and row.to_id == checkpoint.id])


def _checkpoint_frame(conn: Connection, window: str, chain: str) -> pd.DataFrame:
    checkpoint = checkpoints.by_window(conn, chain, window)
    fields = () if checkpoint is None else checkpoint.__dataclass_fields__
    return pd.DataFrame([{name: getattr(checkpoint, name) for name in fields}] if checkpoint is not None else [])
