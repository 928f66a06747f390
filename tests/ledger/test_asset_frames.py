"""What the ledger holds as frames: their columns are those that are documented, and the notebook runs on them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import babylon_assets
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import NoWindow, PermanentError, SettingsError
from babylon_assets.ledger.asset_frames import FRAMES, frame_of
from babylon_assets.ledger.database import Database, open_database
from babylon_assets.ledger.windows import upsert_window
from tests.ledger.values import CHAIN
from tests.site.filled_ledger import WINDOWS, fill
from tests.site.test_comparison import add_prompts
from tools.notebook import NOTEBOOK, run_notebook
from tools.notebook import main as run_tool

#: Columns of a frame that depend on what is scored.
SCORERS = {"outcome"}


@pytest.fixture
def settings(database: Database) -> Settings:
    with database.connect() as conn:
        fill(conn)
        conn.execute("UPDATE babylon_training.windows SET reference = %s", [json.dumps({"oracle": 0.5})])
        add_prompts(conn, 0, [0.0, 0.25, -0.5, 0.5])
        add_prompts(conn, 5, [0.5, 0.25, 0.5, 0.75])
    return Settings(database_url=database.url, environment="babylon")


def test_every_frame_has_the_columns_that_are_documented(settings: Settings, database: Database) -> None:
    frames = {name: babylon_assets.load(name, WINDOWS[0], settings=settings) for name in FRAMES if name != "promotions"}
    frames["promotions"] = babylon_assets.load("promotions", settings=settings)
    assert {name: set(frame.columns) - SCORERS for name, frame in frames.items()} == {
        name: set(columns) for name, columns in FRAMES.items()
    }
    assert {name: len(frame) for name, frame in frames.items()} == {
        "raw_trajectories": 4,
        "scored_trajectories": 4,
        "training_datasets": 4,
        "samples": 4,
        "windows": 1,
        "checkpoints": 1,
        "evaluations": 2,
        "promotions": 4,
    }
    assert frames["samples"]["messages"].iloc[0][0]["role"] == "system"
    assert frames["checkpoints"]["policy"].tolist() == [f"{CHAIN}@1"]
    assert {name for name, frame in frames.items() if "window_id" not in frame or "window" in frame} == {"promotions"}
    both = babylon_assets.load("scored_trajectories", WINDOWS[:2], settings=settings)
    assert both["window_id"].value_counts().to_dict() == dict.fromkeys(WINDOWS[:2], 4)
    with database.connect() as conn:
        assert len(frame_of(conn, "checkpoint_evaluations", WINDOWS[0], CHAIN)) == 1
        assert len(frame_of(conn, "promoted_model", WINDOWS[2], CHAIN)) == 2
        assert len(frame_of(conn, "model_checkpoints", "2026-11-05T23:00", CHAIN)) == 0


def test_a_frame_that_cannot_be_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(PermanentError, match="load one of raw_trajectories, scored_trajectories"):
        babylon_assets.load("trajectories", settings=settings)
    with pytest.raises(PermanentError, match="name a window, such as load"):
        babylon_assets.load("samples", settings=settings)
    for frame in ("samples", "windows"):
        with pytest.raises(ValueError, match=f"know the window 2026-11-05T23:00; the first .* {WINDOWS[0]}, the last"):
            babylon_assets.load(frame, "2026-11-05T23:00", settings=settings)
    with open_database(settings, begin=False).connect() as conn:
        upsert_window(conn, "2026-11-05T23:00", status="open")
    empty = babylon_assets.load("samples", "2026-11-05T23:00", settings=settings)
    assert isinstance(empty, pd.DataFrame) and empty.empty
    for name, text in (("scored_trajectories", "2026-11-29"), ("windows", "2026-11-05T14:30")):
        with pytest.raises(NoWindow, match=r"is not a window; write the UTC hour"):
            babylon_assets.load(name, text, settings=settings)


def test_in_a_folder_without_a_home_nothing_is_begun(tmp_path: Path) -> None:
    nowhere = Settings(home=tmp_path / ".babylon")
    for read in (partial(babylon_assets.load, "windows"), partial(babylon_assets.compare, "a@0", "a@1")):
        with pytest.raises(PermanentError, match=r"\.babylon holds no data and DATABASE_URL is not set"):
            read(settings=nowhere)
    assert not list(tmp_path.iterdir())


def test_a_database_without_our_tables_says_migrate(empty_database: Database) -> None:
    with pytest.raises(SettingsError, match="type: babylon migrate"):
        babylon_assets.load("windows", settings=Settings(database_url=empty_database.url))


def test_who_asks_how_the_notebook_is_run_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["notebook", "--help"])
    with pytest.raises(SystemExit, match="0"):
        run_tool()
    assert "usage: python -m tools.notebook" in capsys.readouterr().out
    needed = "".join(json.loads(NOTEBOOK.read_text())["cells"][0]["source"])
    assert "matplotlib" in needed and "jupyterlab" in needed


def test_the_notebook_runs(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database.url or "")
    monkeypatch.setenv("ENVIRONMENT", "babylon")
    monkeypatch.chdir(tmp_path)
    kept = json.loads(NOTEBOOK.read_text())
    done = run_notebook(kept)
    kinds = [[output["output_type"] for output in cell.get("outputs", [])] for cell in done["cells"]]
    assert kinds == [[output["output_type"] for output in cell.get("outputs", [])] for cell in kept["cells"]]
    assert [kind for kind in kinds if kind].count(["display_data"]) == 2
    assert "recorded prompts: +0.4375" in "".join(done["cells"][-1]["outputs"][0]["text"])
    states = next(cell for cell in kept["cells"] if "groupby" in "".join(cell["source"]))["outputs"][0]["data"]
    assert "size" in states["text/plain"][0]  # a count leaves out the steps whose reward is not known
    assert "/tmp" not in NOTEBOOK.read_text() and "/home" not in NOTEBOOK.read_text()
