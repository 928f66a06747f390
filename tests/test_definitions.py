"""The code location: what it serves, that it loads fast, from every file that names it, without a database."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions, defs
from babylon_assets.orchestration.partitions import build_partitions
from babylon_assets.orchestration.runtime import placing_executor

ROOT = Path(__file__).parents[1]
LINE = [
    *("raw_trajectories", "scored_trajectories", "training_datasets", "model_checkpoints"),
    *("checkpoint_evaluations", "promoted_model"),
]
#: What takes a second or more to import, or more memory than a webserver should hold.
HEAVY = {"torch", "transformers", "peft", "art", "matplotlib", "polars", "starlette", "uvicorn", "openai", "wandb"}
NOWHERE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    return build_definitions(Settings()).resolve_asset_graph()


def spec(graph: Any, asset: str) -> dg.AssetSpec:
    key = dg.AssetKey(asset)
    [definition] = [each for each in graph.assets_defs if key in each.keys]
    found: dg.AssetSpec = definition.specs_by_key[key]
    return found


def test_the_games_tables_are_external_and_partitioned_like_all_others(graph: Any) -> None:
    for key in (dg.AssetKey(["game", "trajectories"]), dg.AssetKey(["game", "outcomes"])):
        node = graph.get(key)
        assert (node.is_external, node.is_executable, node.group_name) == (True, False, "game")
        assert node.partitions_def == graph.get(dg.AssetKey("raw_trajectories")).partitions_def
        assert len(node.description or "") > 300


def test_six_assets_in_a_line_one_of_them_on_its_own_previous_hour(graph: Any) -> None:
    parents = {
        asset: sorted(key.to_user_string() for key in graph.get(dg.AssetKey(asset)).parent_keys) for asset in LINE
    }
    assert parents == {
        "raw_trajectories": ["game/trajectories"],
        "scored_trajectories": ["game/outcomes", "raw_trajectories"],
        "training_datasets": ["scored_trajectories"],
        "model_checkpoints": ["model_checkpoints", "training_datasets"],
        "checkpoint_evaluations": ["model_checkpoints"],
        "promoted_model": ["checkpoint_evaluations"],
    }
    mapping = graph.get_partition_mapping(dg.AssetKey("model_checkpoints"), dg.AssetKey("model_checkpoints"))
    assert (mapping.start_offset, mapping.end_offset) == (-1, -1)


@pytest.mark.parametrize("asset", LINE)
def test_each_asset_says_what_it_is(graph: Any, asset: str) -> None:
    described = spec(graph, asset)
    assert len(described.description or "") > 300
    assert (described.group_name, list(described.owners)) == ("babylon", ["team:babylon"])
    assert described.code_version
    assert len(described.kinds) == 2


def test_partitions_are_the_window_ids() -> None:
    windows = build_partitions(Settings(window_start="2026-10-01T00:00"))
    assert windows.get_first_partition_key() == "2026-10-01T00:00"
    assert windows.get_next_partition_key("2026-10-01T23:00") == "2026-10-02T00:00"


def test_one_training_at_a_time(graph: Any) -> None:
    [checkpoints] = [each for each in graph.assets_defs if dg.AssetKey("model_checkpoints") in each.keys]
    assert checkpoints.op.pool == "training"


def test_an_override_replaces_what_it_names() -> None:
    job = dg.define_asset_job("another", selection=[LINE[0]])
    assert build_definitions(Settings(), jobs=[job], sensors=[]).resolve_job_def("another")
    assert build_definitions(Settings()).resolve_job_def("train_window").executor_def is placing_executor


def test_the_locations_own_definitions_are_those_of_the_environment() -> None:
    assert {key.to_user_string() for key in defs().resolve_all_asset_keys()} == {
        *LINE,
        "game/trajectories",
        "game/outcomes",
    }


def test_it_loads_fast_for_it_leaves_what_is_heavy_to_where_it_is_used() -> None:
    program = (
        "import sys; from babylon_assets.definitions import defs; defs().get_repository_def();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], env=NOWHERE, capture_output=True, text=True, check=True)
    assert HEAVY & set(loaded.stdout.split()) == set()


def test_the_workspace_loads_without_a_database(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")]
    environment = {**NOWHERE, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "babylon_assets" in result.stderr + result.stdout


def test_every_file_that_names_the_location_names_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    location = ("babylon_assets.definitions", "babylon_assets")
    assert (workspace["module_name"], workspace["location_name"]) == location
    assert (project["dagster"]["module_name"], project["dagster"]["code_location_name"]) == location
    assert project["dg"]["project"]["code_location_target_module"] == location[0]
