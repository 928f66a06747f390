"""A window of the simulated game, exported, imported where there is no game, and made into the same dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.domain.datasets import Dataset
from babylon_assets.ledger import trajectories
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.orchestration.assets.raw_trajectories import is_current
from babylon_assets.orchestration.resources import Installation
from tests.orchestration.assets.conftest import FIRST, SECOND, World

Babylon = Callable[..., Any]
STEM = FIRST.replace(":", "")


@pytest.fixture
def babylon(world: World) -> Babylon:
    """Run a command on a database; what it prints."""

    def run(database: Database, *arguments: str) -> str:
        environment = {"DATABASE_URL": database.url, "BABYLON_HOME": str(world.settings.home)}
        result = CliRunner().invoke(app, list(arguments), env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.fixture
def exported(world: World, babylon: Babylon, tmp_path: Path) -> Path:
    """The folder with the files of a played window."""
    world.settings = world.settings.replace(train_rl_local=False)
    world.play(FIRST)
    world.execute(
        'UPDATE public."Market" SET resolved = false WHERE id = (SELECT min("marketId") FROM public."AgentTrade")'
    )
    world.execute('DELETE FROM public."market_outcomes"')
    world.run(FIRST)
    babylon(world.database, "export", FIRST, "--to", str(tmp_path / "exported"))
    return tmp_path / "exported"


def frozen(world: World) -> Dataset:
    with world.database.connect() as conn:
        return load_dataset(conn, world.row(FIRST).dataset_id or "")


def state(database: Database) -> list[Any]:
    """All that an import writes, with the transactions that wrote it."""
    with database.connect() as conn:
        return [
            conn.execute(f"SELECT t.*, t.xmin::text FROM babylon_training.{table} t ORDER BY 1, 2".encode()).fetchall()
            for table in ("windows", "raw_trajectories", "inference_calls", "quarantined_trajectories")
        ]


def imported(babylon: Babylon, database: Database, file: Path, *more: str) -> list[dict[str, Any]]:
    return json.loads(babylon(database, "import", str(file), "--json", *more))  # type: ignore[no-any-return]


def test_a_table_gives_the_same_dataset_where_there_is_no_game(
    world: World, exported: Path, babylon: Babylon, database: Database
) -> None:
    original = frozen(world)
    [told] = imported(babylon, database, exported / f"{STEM}.parquet")
    counts = {"imported": 6, "unchanged": 0, "already read from the environment": 0, "refused": 0}
    assert told == {"window": FIRST, **counts, "reasons": []}
    elsewhere = replace(world, database=database)
    elsewhere.run(FIRST)
    assert frozen(elsewhere) == original
    assert any(each.skip_reason == "outcome not yet known" for each in original.samples)
    raw = elsewhere.metadata("raw_trajectories", FIRST)
    assert (raw["trajectories"], raw["imported"], raw["quarantined"]) == (6, 6, 0)
    first = elsewhere.row(FIRST)
    assert is_current(Installation(elsewhere.settings, database), FIRST)
    elsewhere.run(FIRST)
    assert replace(elsewhere.row(FIRST), changed_at=first.changed_at) == first


def test_the_jsonl_gives_what_is_trained_on(world: World, exported: Path, babylon: Babylon, database: Database) -> None:
    imported(babylon, database, exported / f"{STEM}.jsonl")
    elsewhere = replace(world, database=database)
    elsewhere.run(FIRST)
    original = [each for each in frozen(world).samples if each.trains_as != "skip"]
    again = [each for each in frozen(elsewhere).samples if each.trains_as != "skip"]
    assert again == original
    assert len(original) > 10


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_same_file_again_changes_nothing(exported: Path, babylon: Babylon, database: Database, form: str) -> None:
    file = exported / f"{STEM}.{form}"
    [first] = imported(babylon, database, file)
    before = state(database)
    [again] = imported(babylon, database, file)
    assert (again["imported"], again["unchanged"]) == (0, first["imported"])
    assert state(database) == before


def test_what_cannot_be_read_is_quarantined_once_and_stays_when_the_window_is_read_again(
    world: World, exported: Path, babylon: Babylon, database: Database
) -> None:
    file = exported / f"{STEM}.jsonl"
    file.write_bytes(b'{"trajectories": [\n' + file.read_bytes() + b'{"trajectories": [{}]}\n')
    [told] = imported(babylon, database, file)
    assert (told["imported"] > 0, told["refused"]) == (True, 2)
    with database.connect() as conn:
        first = trajectories.quarantined(conn, FIRST)
    assert imported(babylon, database, file)[0]["refused"] == 2
    elsewhere = replace(world, database=database)
    elsewhere.run(FIRST)
    with database.connect() as conn:
        bad = trajectories.quarantined(conn, FIRST)
    assert bad == first
    last = len(file.read_bytes().splitlines())
    assert sorted(each.place for each in bad) == ["line 1", f"line {last} trajectory 0"]


def test_in_a_game_of_its_own_an_imported_trajectory_stays_beside_those_that_are_read(
    world: World, exported: Path, babylon: Babylon
) -> None:
    file = exported / f"{STEM}.parquet"
    [told] = imported(babylon, world.database, file)
    assert (told["imported"], told["already read from the environment"]) == (0, 6)
    world.play(SECOND)
    [told] = imported(babylon, world.database, file, "--window", SECOND)
    assert (told["window"], told["imported"]) == (SECOND, 6)
    for _ in range(2):
        world.run(SECOND)
        raw, scored = world.metadata("raw_trajectories", SECOND), world.metadata("scored_trajectories", SECOND)
        assert (raw["trajectories"], raw["imported"], scored["steps"]) == (12, 6, 96)
    with world.database.connect() as conn:
        versions = conn.execute(
            "SELECT scorer_version, count(*) FROM babylon_training.trajectory_scores "
            "WHERE window_id = %s AND scorer = 'outcome' AND retired IS NULL GROUP BY 1 ORDER BY 1",
            [SECOND],
        ).fetchall()
    assert versions == [("1", 6), ("imported", 6)]
    world.execute('UPDATE public."Market" SET "updatedAt" = now()')
    world.run(SECOND)
    assert world.metadata("raw_trajectories", SECOND)["imported"] == 6


def test_another_version_of_a_trajectory_replaces_it_and_its_calls(
    exported: Path, babylon: Babylon, database: Database
) -> None:
    file = exported / f"{STEM}.jsonl"
    imported(babylon, database, file)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    changed = lines[0]["trajectories"][0]
    changed["messages_and_choices"][-1]["message"]["content"] += " "
    file.write_bytes(b"\n".join(json.dumps(line).encode() for line in lines))
    with database.connect() as conn:
        before = conn.execute("SELECT call_id FROM babylon_training.inference_calls").fetchall()
        [told] = imported(babylon, database, file)
        after = conn.execute("SELECT call_id FROM babylon_training.inference_calls").fetchall()
    assert told["imported"] == 1
    assert len(set(before) - set(after)) == len(set(after) - set(before)) == 1


def test_a_file_that_is_none_says_what_to_give(babylon: Babylon, database: Database, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": database.url, "BABYLON_HOME": str(tmp_path), "COLUMNS": "200"}
    (tmp_path / "broken.parquet").write_text("no table")
    for name, told in (("absent.jsonl", "there is no file"), ("broken.parquet", "cannot be read as Parquet")):
        result = CliRunner().invoke(app, ["import", str(tmp_path / name)], env=environment)
        assert result.exit_code == 1
        assert told in result.output
    lines = [b'{"step": 1}'] * 4 + [b'{"trajectories": [{}]}']
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(lines))
    refused = CliRunner().invoke(app, ["import", str(tmp_path / "bad.jsonl"), "--window", FIRST], env=environment)
    assert refused.exit_code == 1
    assert 'no trajectory group: it has no field "trajectories" (line 1, line 2, line 3, ...)' in refused.output
    assert "1 refused  a trajectory without messages_and_choices (line 5 trajectory 0)" in refused.output
    no_window = CliRunner().invoke(app, ["import", str(tmp_path / "bad.jsonl")], env=environment)
    assert no_window.output.count("give one with --window") == 1
