"""What the ledger holds as pandas frames: for notebooks, and for assets of others that take one of ours as an argument.

    import babylon_assets as babylon

    babylon.load("windows")
    babylon.load("scored_trajectories", "2026-11-05T14:00")

Rows come from PostgreSQL at the moment of reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

import pandas as pd
import psycopg

from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints, datasets, evaluations, promotions, scores, trajectories, windows
from babylon_assets.ledger.database import Connection, open_database
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.ledger.promotions import Promotion
from babylon_assets.ledger.specification import (
    CHECKPOINT_EVALUATIONS,
    MODEL_CHECKPOINTS,
    PROMOTIONS,
    RAW_TRAJECTORIES,
    TRAINING_DATASET_SAMPLES,
    WINDOW_ID,
    WINDOWS,
)
from babylon_assets.ledger.sqlstates import named_error
from babylon_assets.ledger.table import Table
from babylon_assets.ledger.windows import WindowRow

_POLICY = {"policy": "Name of the policy, such as `babylon-agent@3`."}
_WINDOW = {"window_id": WINDOW_ID}
_SCORED = _WINDOW | {
    "trajectory_id": "The trajectory.",
    "agent_id": "Its agent.",
    "step": "The step.",
    "state": "The step's outcome: final, pending, no_trade, invalid or unknown.",
    "worth": "What the step's action was worth; NaN while it is not known.",
    "reward": "Weighted sum of the scores; NaN while it is not known. A column for each scorer stands before it.",
    "final": "Whether no score of it can change any more.",
}
_TEXTS = {
    "messages": "The conversation up to where the answer begins: a list of messages with `role` and `content`.",
    "response": "The answer.",
}


def _columns(table: Table, *without: str) -> dict[str, str]:
    return {name: column.meaning for name, column in table.columns.items() if name not in without}


#: Every frame that `load` gives, with its columns and what they mean. The first four need a window.
FRAMES: Mapping[str, Mapping[str, str]] = {
    "raw_trajectories": _columns(RAW_TRAJECTORIES, "body", "instruments", "chat", "chat_sha256", "given"),
    "scored_trajectories": _SCORED,
    "training_datasets": _WINDOW | _columns(TRAINING_DATASET_SAMPLES),
    "samples": _WINDOW | _columns(TRAINING_DATASET_SAMPLES) | _TEXTS,
    "windows": _columns(WINDOWS),
    "checkpoints": _POLICY | _columns(MODEL_CHECKPOINTS),
    "evaluations": _POLICY | _columns(CHECKPOINT_EVALUATIONS),
    "promotions": _POLICY | _columns(PROMOTIONS),
}
#: The steps that scorers are given say `window`; every frame says `window_id`, as our tables do.
_RENAMED = {"window": "window_id"}
#: Frames of one window.
_OF_WINDOW: Mapping[str, Callable[[Connection, str], pd.DataFrame]] = {
    "raw_trajectories": trajectories.raw_frame,
    "scored_trajectories": lambda conn, window: scores.read_scores(conn, window).rename(columns=_RENAMED),
    "training_datasets": lambda conn, window: _samples(conn, window, texts=False),
    "samples": lambda conn, window: _samples(conn, window, texts=True),
}
#: What the assets are called whose frames are those of a chain.
_OF_ASSET = {
    "model_checkpoints": ("checkpoints", "window_id"),
    "checkpoint_evaluations": ("evaluations", "checkpoint_id"),
    "promoted_model": ("promotions", "to_id"),
}


def load(name: str, window: str | Sequence[str] | None = None, *, settings: Settings | None = None) -> pd.DataFrame:
    """What the ledger holds, as a frame: a row per trajectory, step, sample, window, checkpoint or measurement.

    Args:
        name: `windows`, `raw_trajectories`, `scored_trajectories`, `training_datasets`, `samples` (with their texts),
            `checkpoints`, `evaluations` or `promotions`; the reference lists their columns.
        window: the window, or several of them, for the frames that are kept by window. The others are whole without
            one, and otherwise have the rows of these windows.
        settings: where the ledger is; None: as the environment says.

    Raises:
        PermanentError: there is no such frame, or it needs a window, or the home holds no data.
        NoWindow: a text is the id of no window of the settings' length.
        ValueError: the ledger knows no such window.
        SettingsError: our tables are missing; `babylon migrate` makes them.
        DatabaseUnavailable: the database does not answer.
    """
    if name not in FRAMES:
        raise PermanentError(f"there is no frame {name!r}; load one of {', '.join(FRAMES)}")
    wanted = [window] if isinstance(window, str) else None if window is None else list(window)
    if name in _OF_WINDOW and not wanted:
        raise PermanentError(f'name a window, such as load({name!r}, "2026-11-05T14:00"); load("windows") lists them')
    chosen = settings or load_settings()
    for window_id in wanted or ():
        chosen.windows.parse(window_id)
    with reading(chosen) as conn:
        _require_known(conn, wanted or ())
        if name in _OF_WINDOW:
            parts = [_OF_WINDOW[name](conn, window_id) for window_id in wanted or ()]
            return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
        frame = _OF_CHAIN[name](conn, chosen.model_name)
    if wanted is None:
        return frame
    return frame[frame["window_id"].isin(wanted)].reset_index(drop=True)


def _require_known(conn: Connection, wanted: Sequence[str]) -> None:
    known = {row.window_id for row in windows.list_windows(conn)} if wanted else set()
    for window in wanted:
        if window not in known:
            those = f"the first that it knows is {min(known)}, the last {max(known)}" if known else "it knows none yet"
            raise ValueError(f"the ledger does not know the window {window}; {those}")


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """A connection to the ledger for who only reads: nothing is begun, and its errors are the product's.

    Raises:
        PermanentError, SettingsError, DatabaseUnavailable: as of `load`.
    """
    try:
        with open_database(settings, begin=False).connect() as conn:
            yield conn
    except psycopg.Error as error:
        raise named_error(error) or error from error


def frame_of(conn: Connection, asset: str, window: str, chain: str) -> pd.DataFrame:
    """One partition of one of the six assets as a frame; a window that has nothing gives no rows."""
    if asset in _OF_WINDOW:
        return _OF_WINDOW[asset](conn, window)
    name, key = _OF_ASSET[asset]
    checkpoint = checkpoints.by_window(conn, chain, window)
    frame = _OF_CHAIN[name](conn, chain)
    wanted = window if key == "window_id" else checkpoint.id if checkpoint else None
    return frame[frame[key] == wanted].drop(columns="policy").reset_index(drop=True)


def _names(record: Any) -> list[str]:
    return [item.name for item in fields(record)]


def _samples(conn: Connection, window: str, *, texts: bool) -> pd.DataFrame:
    """The samples of a window's newest dataset, with their texts or without."""
    row = windows.get_window(conn, window)
    if row is None or row.dataset_id is None:
        return pd.DataFrame(columns=list(FRAMES["samples" if texts else "training_datasets"]))
    frame = datasets.dataset_frame(conn, row.dataset_id)
    frame.insert(0, "window_id", window)
    if not texts:
        return frame
    known = {sample.sample_id: sample for sample in datasets.load_dataset(conn, row.dataset_id).samples}
    spoken = [known[name] for name in frame["sample_id"]]
    messages = [[{"role": part.role, "content": part.content} for part in sample.messages] for sample in spoken]
    frame["messages"], frame["response"] = pd.Series(messages, dtype="object"), [sample.response for sample in spoken]
    return frame


def _checkpoints(conn: Connection, chain: str) -> pd.DataFrame:
    """A row per checkpoint of a chain and its branches, in the order of their steps."""
    members = checkpoints.family(conn, chain)
    rows = [{"policy": policy_name(row.chain, row.step), **asdict(row)} for row in members]
    return pd.DataFrame(rows, columns=list(FRAMES["checkpoints"]))


def _evaluations(conn: Connection, chain: str) -> pd.DataFrame:
    """A row per evaluation of a checkpoint of a chain and its branches."""
    rows = [
        {"policy": policy_name(member.chain, member.step), **asdict(row)}
        for member in checkpoints.family(conn, chain)
        for row in evaluations.of_checkpoint(conn, member.id)
    ]
    return pd.DataFrame(rows, columns=["policy", *_names(Evaluation)])


def _promotions(conn: Connection, chain: str) -> pd.DataFrame:
    """A row per promotion or rollback of a chain, oldest first; `policy` is the one that is served from then on."""
    names = {member.id: policy_name(member.chain, member.step) for member in checkpoints.family(conn, chain)}
    rows = [{"policy": names.get(row.to_id), **asdict(row)} for row in promotions.history(conn, chain)]
    return pd.DataFrame(rows, columns=["policy", *_names(Promotion)])


#: Frames of a chain.
_OF_CHAIN: Mapping[str, Callable[[Connection, str], pd.DataFrame]] = {
    "windows": lambda conn, _: pd.DataFrame(map(asdict, windows.list_windows(conn)), columns=_names(WindowRow)),
    "checkpoints": _checkpoints,
    "evaluations": _evaluations,
    "promotions": _promotions,
}
