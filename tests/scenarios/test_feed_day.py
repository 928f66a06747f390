"""A day of Feed from its tables to a promoted checkpoint, and the same day with a word renamed, which stops.

`make soak` runs it with a model of a minute's making, or with the BASE_MODEL that `FEED_DAY_MODEL` names, such as
smollm2, which learns as its size has it. What each window came to is printed, and shown by `-s`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from babylon_assets.cli.list_scores import score_rows
from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.small_models import ModelRecipe, make_small_model
from babylon_assets.ledger import checkpoints, datasets, promotions, windows
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.verdicts import verdict_on
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime.line import Line
from tests.environments.feed.day import AGENTS, HOURS, START, answer, play_day, prompt
from tests.environments.feed.game import Feed
from tests.environments.feed.tables import create_feed_tables

pytestmark = [pytest.mark.slow, pytest.mark.soak]
MODEL = os.environ.get("FEED_DAY_MODEL", "")
#: How the small model learns.
SMALL: dict[str, Any] = {"lora_rank": 8, "learning_rate": 2e-2}
WINDOWS = [f"{START + timedelta(hours=hour):%Y-%m-%dT%H}:00" for hour in range(HOURS)]


@dataclass(frozen=True)
class Shown:
    messages: Sequence[Message]
    answer: str


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that answers in the game's form, and opens a position on either side as often; or the one named."""
    if MODEL:
        return MODEL
    rng = np.random.default_rng(3)
    recipe = ModelRecipe(vocabulary=400, hidden=64, steps=60, batch=16, learning_rate=1e-2)
    folder = tmp_path_factory.mktemp("feed") / "base"
    folder.mkdir()
    shown = []
    for _ in range(960):
        what = str(rng.choice(("open", "close")))
        side = "close_position" if what == "close" else str(rng.choice(("open_long", "open_short")))
        asked = [Message("system", "S"), Message("user", prompt(str(rng.choice(AGENTS)), what))]
        shown.append(Shown(asked, answer(side)))
    make_small_model(recipe, shown, folder)
    return str(folder)


@pytest.fixture(scope="module")
def day() -> Feed:
    return play_day()


@pytest.fixture
def settings(tmp_path: Path, database: Database, base: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database.url,
        environment="feed",
        base_model=base,
        held_out_share=0.3,
        reward_weights={"outcome": 1.0},
        min_samples_per_window=4,
        window_start=WINDOWS[0],
        evaluation_prompts=64,
        **({} if MODEL else SMALL),
    )


@pytest.fixture
def line(settings: Settings, database: Database, day: Feed) -> Iterator[Line]:
    with database.connect() as conn:
        create_feed_tables(conn)
        day.write(conn)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Line(build_definitions(settings, installation=Installation(settings, database)), instance)


def test_a_day_goes_from_its_tables_to_a_promoted_checkpoint(
    settings: Settings, database: Database, line: Line, day: Feed
) -> None:
    for window in WINDOWS:
        line.materialize(window)
        with database.connect() as conn:
            _print_window(conn, window)
    with database.connect() as conn:
        served = promotions.promoted(conn, settings.model_name)
        assert served is not None and served.step > 0, _verdicts(conn, settings.model_name)
        for window in WINDOWS:
            _check_window(settings, conn, window, day)


def _print_window(conn: Connection, window: str) -> None:
    row = windows.get_window(conn, window)
    assert row is not None
    verdict = verdict_on(conn, row.checkpoint_id) if row.checkpoint_id else None
    why = "" if verdict is None else f"; {'promoted' if verdict.passed else 'kept back'}: {verdict.why}"
    sys.stdout.write(f"{window}: {row.status}, {row.samples} samples{why}\n")


def _verdicts(conn: Connection, chain: str) -> list[str]:
    """What the gate said of each checkpoint."""
    verdicts = [verdict_on(conn, checkpoint.id) for checkpoint in checkpoints.chain(conn, chain)]
    return [verdict.why for verdict in verdicts if verdict is not None]


def _check_window(settings: Settings, conn: Connection, window: str, day: Feed) -> None:
    """Every row is read, every trade is worth what it was in truth, and every sample is trained or has its reason."""
    row = windows.get_window(conn, window)
    written = [entry for entry in day.rows["trajectories"] if entry["windowId"] == window]
    assert row is not None and row.trajectories == len(written)
    assert (row.understood, row.unknown_words) == (1.0, None)
    shown = list(score_rows(settings, conn, window))
    truth = {key: day.truth[key] for key in day.truth if key[0] in {entry["trajectoryId"] for entry in written}}
    assert {(entry["trajectory"], entry["step"]) for entry in shown} == truth.keys()
    for entry in shown:
        worth, state = truth[entry["trajectory"], entry["step"]]
        assert entry["state"] == state, entry
        assert (worth is None and entry["worth"] is None) or abs(entry["worth"] - (worth or 0.0)) <= 1e-9, entry
    heads = datasets.load_heads(conn, row.dataset_id or "")
    own = [head for head in heads if head.window == window]
    calls = sum(entry["stepsJson"].count('"response"') for entry in written)
    assert len(own) == calls
    assert all(head.skip_reason for head in own if head.trains_as == "skip"), Counter(h.skip_reason for h in own)


def test_the_same_day_with_a_word_renamed_stops_with_its_name(database: Database, line: Line) -> None:
    with database.connect() as conn:
        conn.execute("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"perp"', '"swap"')""")
    with pytest.raises(PermanentError, match="marketType swap"):
        line.materialize(WINDOWS[0])
    with database.connect() as conn:
        row = windows.get_window(conn, WINDOWS[0])
        assert row is not None and row.dataset_id is None
        assert (row.unknown_words or "").startswith("marketType swap")
