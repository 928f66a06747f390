"""The command as a person and a script meet it: help, exit codes, JSON, errors in one message."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from babylon_assets.cli.app import app, arguments_of_mode, main
from babylon_assets.cli.simulated_game import as_begun
from babylon_assets.cli.status import _without_repeats as without_repeats
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.datasets import build_dataset
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.token_counts import explain_early_end
from babylon_assets.ledger import training_jobs
from babylon_assets.ledger.checkpoints import Checkpoint, insert_checkpoint
from babylon_assets.ledger.database import Database, newest_revision
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory
from tests.ledger.values import CHAIN, dataset, sample
from tests.site.filled_ledger import EARLY_END

COMMANDS = (
    *("demo", "up", "down", "site", "compare", "simulate", "migrate", "windows", "train", "status", "export", "doctor"),
    *("chains", "lineage", "reproduce", "prune", "forget", "report", "backfill", "serve", "import"),
    *("evaluate", "promote", "rollback", "scores", "promotions"),
)
KEYS = [
    *("window", "state", "trajectories", "samples", "trainable_tokens"),
    *("reward_mean", "oracle", "dataset", "parent", "checkpoint", "parent_policy", "policy"),
    *("understood", "unknown_words", "understanding"),
    *("carried_from", "carried_into", "carried_too_old", "late_waiting"),
]
FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"
DATASET = build_dataset(FIRST, [], {}, pd.DataFrame({"trajectory_id": [], "step": [], "reward": []}), "babylon-agent")
Babylon = Callable[..., Result]


@pytest.fixture
def babylon(tmp_path: Path, database: Database) -> Babylon:
    """Run a command against a fresh database that has our schema."""

    def run(*arguments: str, **environment: str) -> Result:
        given = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": database.url, "COLUMNS": "200", **environment}
        return CliRunner().invoke(app, list(arguments), env=given)

    return run


@pytest.fixture
def ledger(database: Database) -> None:
    """Two windows, the first of them trained."""
    with database.connect() as conn:
        root, made = (checkpoint(step) for step in (0, 1))
        insert_checkpoint(conn, root)
        upsert_window(conn, SECOND, trajectories=3)
        upsert_window(conn, FIRST, status="trained", samples=48, trainable_tokens=900, reward_mean=0.25)
        save_dataset(conn, DATASET)
        insert_checkpoint(conn, made)
        upsert_window(
            conn,
            FIRST,
            dataset_id=DATASET.id,
            checkpoint_id=made.id,
            parent_id=root.id,
            reference={"oracle": 0.5, "random": 0.0},
        )


def checkpoint(step: int) -> Checkpoint:
    facts: dict[str, Any] = {}
    if step:
        facts = {"parent_id": "c0", "window_id": FIRST, "dataset_id": DATASET.id, "dagster_run_id": "run-1"}
    return Checkpoint(
        id=f"c{step}",
        chain="babylon-agent",
        step=step,
        base_model="base",
        weights_sha256="w",
        seed=7,
        created_at=datetime(2026, 11, 5, 15, tzinfo=UTC),
        metrics=EARLY_END,
        **facts,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(babylon: Babylon, command: str) -> None:
    result = babylon(command, "--help")
    assert result.exit_code == 0
    assert f"babylon {command}" in result.output.partition("Example:")[2]


def test_the_commands_are_these(babylon: Babylon) -> None:
    shown = [command for command in app.registered_commands if not command.hidden]
    assert {command.name or command.callback.__name__ for command in shown} == set(COMMANDS)  # type: ignore[union-attr]
    listed = babylon("--help").output
    assert all(command in listed for command in COMMANDS)


def test_windows_as_json_is_a_list_oldest_first_with_exactly_these_keys(babylon: Babylon, ledger: None) -> None:
    rows = json.loads(babylon("windows", "--json").stdout)
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert rows[0] == {
        "window": FIRST,
        "state": "trained",
        "trajectories": 0,
        "samples": 48,
        "trainable_tokens": 900,
        "reward_mean": 0.25,
        "oracle": 0.5,
        "dataset": DATASET.id,
        "parent": "c0",
        "checkpoint": "c1",
        "parent_policy": "babylon-agent@0",
        "policy": "babylon-agent@1",
        "understood": None,
        "unknown_words": None,
        "understanding": None,
        "carried_from": {},
        "carried_into": {},
        "carried_too_old": 0,
        "late_waiting": 0,
    }
    assert (rows[1]["window"], rows[1]["state"], rows[1]["oracle"]) == (SECOND, "open", None)


def test_windows_for_a_person_names_policies(babylon: Babylon, ledger: None) -> None:
    shown = babylon("windows").stdout
    assert "  babylon-agent@1" in shown and "@0" not in shown
    assert "\x1b" not in shown


def test_no_windows_yet_says_what_to_type(babylon: Babylon) -> None:
    assert "babylon demo" in babylon("windows").stdout


def test_status_prints_where_a_checkpoint_comes_from(babylon: Babylon, ledger: None) -> None:
    shown = json.loads(babylon("status", FIRST, "--json").stdout)
    assert shown["lineage"]["policy"] == "babylon-agent@1"
    assert (shown["parent"], shown["checkpoint"]) == ("c0", "c1")
    assert (shown["lineage"]["seed"], shown["lineage"]["dagster_run_id"]) == (7, "run-1")
    assert {"settings", "versions", "dataset_id", "weights_sha256"} <= set(shown["lineage"])
    assert shown["lineage"]["ended_early"] == explain_early_end(EARLY_END)
    printed = babylon("status", FIRST).stdout
    assert "babylon-agent@1" in printed and "1,209 were not seen" in " ".join(printed.split())


def test_status_shows_a_person_each_fact_once_and_names_both_datasets(
    babylon: Babylon, ledger: None, database: Database
) -> None:
    def facts() -> list[tuple[str, str]]:
        lines = (line.strip().partition("  ") for line in babylon("status", FIRST).stdout.splitlines())
        return [(name, value.strip()) for name, _, value in lines]

    with database.connect() as conn:
        upsert_window(conn, FIRST, understood=1.0)
    same = facts()
    assert [value for _, value in same].count(FIRST) == 1
    assert ("dataset", DATASET.id) in same and ("understood", "100%") in same and ("run", "run-1") in same
    assert sum("c0" in value.split() for _, value in same) == 1
    assert not {"parent_id", "window_id", "dagster_run_id"} & {name for name, _ in same}
    newer = msgspec.structs.replace(DATASET, id="newer")
    with database.connect() as conn:
        save_dataset(conn, newer)
        upsert_window(conn, FIRST, dataset_id="newer")
    assert {("newest dataset", "newer"), ("trained on dataset", DATASET.id)} <= set(facts())
    assert dict(facts())["trainable_tokens"].endswith(" in the newest dataset")


def test_status_names_the_commonest_reasons_why_rows_were_not_read() -> None:
    reasons = {f"reason {number}": 100 - number for number in range(13)}
    told = without_repeats({"not_read": reasons})["not_read"]
    assert list(told)[:10] == list(reasons)[:10]
    assert (len(told), told["other reasons; --json has all"]) == (11, 90 + 89 + 88)


def test_status_knows_an_attempt_that_lives_from_one_that_died(babylon: Babylon, database: Database) -> None:
    with database.connect() as conn:
        for window in (FIRST, SECOND):
            job = training_jobs.start_job(conn, window=window, chain=CHAIN, backend="embedded")
            training_jobs.advance_job(conn, job.id, "training")
        conn.execute(
            "UPDATE babylon_training.training_jobs SET heartbeat = now() - interval '2 minutes' WHERE window_id = %s",
            [FIRST],
        )
    training = json.loads(babylon("status", "--json").stdout)["training"]
    assert "no sign of life for 120 s: its process has died" in training[f"{FIRST} on {CHAIN}"]
    assert "training with embedded, last sign of life 0 s ago" in training[f"{SECOND} on {CHAIN}"]


def test_status_of_the_chain(babylon: Babylon, ledger: None) -> None:
    shown = json.loads(babylon("status", "--json").stdout)
    assert shown["windows"] == {"open": 1, "trained": 1}
    assert (shown["head"]["step"], shown["newest window"]) == (1, SECOND)
    names = [line.split()[0] for line in babylon("status").stdout.splitlines()]
    assert "head" in names and "training" not in names  # nothing is being trained


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["windows", "--yaml"], 2, "No such option"),
        (["train"], 2, "give a window, or --follow"),
        (["status", "yesterday"], 2, "YYYY-MM-DDTHH:00"),
        (["status", SECOND], 1, f"{SECOND} was never read"),
        (["train", "2999-01-01T00:00"], 1, "2999-01-01T00:00 is not over yet"),
    ],
)
def test_a_refusal_has_a_code_and_says_what_to_do(babylon: Babylon, arguments: list[str], code: int, told: str) -> None:
    result = babylon(*arguments)
    assert result.exit_code == code
    assert told in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_database_that_does_not_answer_is_worth_trying_again(babylon: Babylon) -> None:
    result = babylon("windows", DATABASE_URL="postgresql://me:hush-hush@127.0.0.1:1/game")
    assert result.exit_code == 75
    assert "127.0.0.1:1/game does not answer" in " ".join(result.stderr.split())
    assert "hush-hush" not in result.output


def test_a_wrong_setting_is_named_with_what_is_allowed(babylon: Babylon) -> None:
    result = babylon("windows", LORA_RANK="many")
    assert (result.exit_code, result.stderr.strip()) == (
        2,
        "error: LORA_RANK is 'many'; set it to a whole number from 1 to 256",
    )


def test_a_database_without_our_tables_says_migrate(babylon: Babylon, empty_database: Database) -> None:
    url = empty_database.url
    result = babylon("windows", DATABASE_URL=url)
    assert result.exit_code == 1
    assert "type: babylon migrate" in " ".join(result.stderr.split())
    assert babylon("migrate", DATABASE_URL=url).exit_code == 0
    again = babylon("migrate", DATABASE_URL=url)
    assert (again.exit_code, "is at revision" in again.stdout) == (0, True)
    assert babylon("windows", DATABASE_URL=url).exit_code == 0


def test_the_demo_leaves_a_real_game_alone(babylon: Babylon, game_database: Database) -> None:
    with game_database.connect() as conn:
        conn.execute('INSERT INTO public."User" (id, "updatedAt") VALUES (\'42\', now())')
    result = babylon("demo", DATABASE_URL=game_database.url)
    assert result.exit_code == 1
    assert "holds a game that is not simulated" in " ".join(result.stderr.split())


def test_the_demo_goes_on_with_the_game_it_began(babylon: Babylon, tmp_path: Path) -> None:
    game = {"simulation_seed": 3, "simulation_rooms": 4, "simulation_agents_per_room": 8, "simulation_ticks": 16}
    (tmp_path / "game.json").write_text(json.dumps(game))
    result = babylon("demo", "--seed", "4")
    assert result.exit_code == 1
    assert "was begun with simulation_seed 3" in " ".join(result.stderr.split())


def test_the_demo_refuses_another_base_model_before_it_is_fetched(babylon: Babylon, tmp_path: Path) -> None:
    (tmp_path / "game.json").write_text(json.dumps({"simulation_seed": 0, "base_model": "base_models/tiny-0"}))
    result = babylon("demo", "--model", "smollm2", PIP_NO_INDEX="1")
    assert result.exit_code == 1
    refusal = " ".join(result.stderr.split())
    assert "was begun with the base model tiny-0, and this one is smollm2-" in refusal


def test_what_is_not_set_of_a_game_is_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Settings(home=tmp_path)
    assert as_begun(home).simulation == home.simulation
    for style, rooms in (("terse", 8), ("game", 4)):
        new = as_begun(Settings(home=tmp_path, base_model="smollm2", simulation_style=style)).simulation
        assert (new.rooms, new.agents_per_room, new.ticks) == (rooms, 4, 8)
    new = as_begun(Settings(home=tmp_path, base_model="smollm2", simulation_ticks=16)).simulation
    assert (new.rooms, new.agents_per_room, new.ticks) == (8, 4, 16)
    (tmp_path / "game.json").write_text(json.dumps({"simulation_seed": 3, "simulation_ticks": 5, "base_model": "x"}))
    going_on = as_begun(Settings(home=tmp_path, simulation_ticks=6)).simulation
    assert (going_on.seed, going_on.ticks) == (3, 6)
    monkeypatch.setenv("BABYLON_HOME", str(tmp_path))
    assert as_begun(load_settings()).simulation.seed == 3


def test_a_package_that_is_missing_is_named_and_no_game_has_begun(
    babylon: Babylon, game_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = babylon("demo", DATABASE_URL=game_database.url)
    assert result.exit_code == 1
    assert "the package torch is not installed; type: pip install" in " ".join(result.stderr.split())
    assert not (tmp_path / "game.json").exists()
    assert "Traceback" not in result.output


def test_a_dataset_is_exported_as_jsonl_and_parquet(babylon: Babylon, database: Database, tmp_path: Path) -> None:
    import polars

    kept = dataset(sample(0), sample(1, policy=None, token_ids=None), window=FIRST)
    with database.connect() as conn:
        save_dataset(conn, kept)
        upsert_window(conn, FIRST, dataset_id=kept.id)
    done = babylon("export", FIRST, "--to", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    [line] = (tmp_path / "out" / "2026-11-05T1400.jsonl").read_text().splitlines()
    assert len(json.loads(line)["trajectories"]) == 2
    table = polars.read_parquet(tmp_path / "out" / "2026-11-05T1400.parquet")
    assert table["sample_id"].to_list() == ["t0/0/0", "t1/0/0"]
    assert table["token_ids"].to_list() == [[7, 8, 2], None]
    none = babylon("export", SECOND)
    assert (none.exit_code, f"{SECOND} has no dataset yet; train it" in " ".join(none.stderr.split())) == (1, True)


def test_doctor_finds_what_is_wrong_and_says_what_to_do(
    babylon: Babylon, game_database: Database, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = {"DATABASE_URL": game_database.url, "BASE_MODEL": str(tiny_base)}
    well = babylon("doctor", **game)
    assert well.exit_code == 0, well.output
    assert f"revision {newest_revision()}, the newest" in well.stdout
    with game_database.connect() as conn:
        add_users(conn, "a1")
        add_trajectories(conn, trajectory("t1", windowId="2026-10-01"))
    lost = babylon("doctor", **game)
    told = "1 row with a windowId that is no window, such as '2026-10-01', placed by endTime"
    assert (lost.exit_code, told in " ".join(lost.stdout.split())) == (0, True)
    named = babylon("windows", DATABASE_URL=game_database.url)
    assert "The windowId of 1 trajectory is no window ('2026-10-01')" in " ".join(named.stderr.split())
    game_less = babylon("doctor")
    assert game_less.exit_code == 1
    assert 'table "trajectories" is missing' in " ".join(game_less.stdout.split())
    monkeypatch.setattr("babylon_assets.cli.doctor.PINS", {"transformers": "4."})
    outdated = babylon("doctor", **game)
    assert (outdated.exit_code, "4. is needed; type: make" in outdated.stdout) == (1, True)  # the cell may wrap


def test_doctor_shows_every_setting_and_no_secret(babylon: Babylon) -> None:
    keyed = {"WANDB_API_KEY": "wandb-secret-key", "SERVERLESS_URL": "http://127.0.0.1:9"}
    shown, short = babylon("doctor", "--settings", **keyed).stdout, babylon("doctor", **keyed).stdout
    assert all(name in shown for name in ("WANDB_API_KEY", "REWARD_WEIGHTS", "WINDOWS_FROM"))
    assert "wandb-secret-key" not in shown
    assert "REWARD_WEIGHTS" not in short and "babylon doctor --settings" in short
    assert "found something to do: " in short.splitlines()[0] and "key of W&B" in short.splitlines()[0]
    first = next(line for line in short.splitlines() if line.startswith(("no ", "ok ", "? ")))
    assert first.startswith("no ")  # what is to be done comes first


def test_a_base_model_that_is_not_here_is_not_well(babylon: Babylon) -> None:
    listed = json.loads(babylon("doctor", "--json", BASE_MODEL="openai-community/gpt2").stdout)["findings"]
    [found] = [finding for finding in listed if finding["name"] == "base model"]
    assert (found["sure"], "reach the hub and ask again" in found["remedy"]) == (False, True)
    lines = babylon("doctor", BASE_MODEL="openai-community/gpt2").stdout.splitlines()
    assert any(line.startswith("? ") and "base model" in line for line in lines)
    assert "not known before the first training: base model" in lines[0] and "all is well" not in lines[0]


@pytest.mark.parametrize(
    ("mode", "window", "arguments"),
    [
        (None, None, []),
        ("list", None, ["windows"]),
        ("single", FIRST, ["train", FIRST]),
        ("continuous", None, ["train", "--follow"]),
    ],
)
def test_the_earlier_trainers_mode_says_what_to_do(mode: str | None, window: str | None, arguments: list[str]) -> None:
    assert arguments_of_mode(Settings(mode=mode, window_id=window)) == arguments


def test_single_without_a_window_is_refused() -> None:
    with pytest.raises(PermanentError, match="set WINDOW_ID"):
        arguments_of_mode(Settings(mode="single"))


def test_arguments_win_over_mode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MODE", "list")
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--help"])
    assert stopped.value.code == 0
    assert "Example" in capsys.readouterr().out


def test_the_module_is_the_command(database: Database, ledger: None, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": database.url, "BABYLON_HOME": str(tmp_path), "MODE": "list", "PATH": "/usr/bin"}
    shown = subprocess.run(
        [sys.executable, "-m", "babylon_assets"], env=environment, capture_output=True, text=True, check=True
    )
    assert FIRST in shown.stdout
