"""`babylon evaluate`, `promote`, `rollback` and `promotions`, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.environments.babylon.writeback import served
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.verdicts import StoredVerdict, store_verdict
from babylon_assets.ledger.windows import upsert_window
from tests.ledger.values import CHAIN, LATER, LATEST, WINDOW, checkpoint, dataset, root, sample

Babylon = Callable[..., Result]
SNAPSHOT = Path(__file__).parent / "environments" / "snapshot.json"


@pytest.fixture
def babylon(game_database: Database, tmp_path: Path) -> Babylon:
    def run(*arguments: str, **more: str) -> Result:
        environment = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": game_database.url, "COLUMNS": "200", **more}
        return CliRunner().invoke(app, list(arguments), env=environment)

    return run


@pytest.fixture
def ledger(game_database: Database) -> Database:
    """A chain of two promoted checkpoints and one that was refused."""
    kept = dataset(sample(0))
    with game_database.connect() as conn:
        save_dataset(conn, kept)
        checkpoints.ensure_root(conn, root())
        for step, window in ((1, WINDOW), (2, LATER)):
            made = checkpoint(step, window, kept.id)
            checkpoints.insert_checkpoint(conn, made)
            promotions.promote(conn, made, by="gate", why=f"step {step} is better")
            conn.commit()
        refused = checkpoint(3, LATEST, kept.id)
        checkpoints.insert_checkpoint(conn, refused)
        fields = {"champion_id": f"{CHAIN}-2", "passed": False, "why": "it is worse", "verdict": {}}
        store_verdict(conn, StoredVerdict(checkpoint_id=refused.id, chain=CHAIN, **fields))  # type: ignore[arg-type]
        checkpoints.reject(conn, refused.id, "refused: it is worse")
    return game_database


def test_a_rollback_goes_back_to_what_was_live_and_the_game_picks_it(babylon: Babylon, ledger: Database) -> None:
    done = babylon("rollback", "--why", "it lost money", "--json", WRITE_TRAINED_MODELS="true")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["kind"], told["policy"], told["from"]) == ("rollback", f"{CHAIN}@1", f"{CHAIN}@2")
    with ledger.connect() as conn:
        picked, line = served(conn), checkpoints.chain(conn, CHAIN)
        head = checkpoints.head(conn, CHAIN)
    assert picked is not None and picked[1] == f"{CHAIN}@1"
    assert head is not None and head.step == 1
    assert line[2].rejected == f"rolled back to {CHAIN}@1: it lost money"
    back = babylon("rollback", "--to", f"{CHAIN}@0", "--why", "start again")
    assert f"{CHAIN}@0 is served; before it was {CHAIN}@1" in back.stdout
    nothing = babylon("rollback", "--why", "further")
    assert nothing.exit_code == 1
    assert "no checkpoint of babylon-agent was promoted" in nothing.stderr


def test_a_rollback_undoes_a_promotion_by_hand_and_then_the_one_before(babylon: Babylon, ledger: Database) -> None:
    """What is served is named as people do: by its step, or as the base model."""
    by_hand = babylon("promote", "base", "--why", "try it")
    assert f"{CHAIN}@0 is served; before it was {CHAIN}@2\n2 checkpoints are set aside" in by_hand.stdout
    back = babylon("rollback", "--why", "back")
    assert (back.stderr, back.stdout) == (
        f"going back to {CHAIN}@2\n",
        f"{CHAIN}@2 is served; before it was {CHAIN}@0\n",
    )
    with ledger.connect() as conn:
        assert [made.rejected for made in checkpoints.chain(conn, CHAIN)] == [None] * 3 + ["refused: it is worse"]
    further = [json.loads(babylon("rollback", "--why", "back", "--json").stdout) for _ in range(2)]
    assert [(row["policy"], row["set_aside"]) for row in further] == [(f"{CHAIN}@1", 1), (f"{CHAIN}@0", 1)]
    babylon("promote", "@2", "--why", "again")
    assert f"{CHAIN}@1 is served" in babylon("rollback", "--to", "@1", "--why", "back").stdout


@pytest.mark.parametrize("command", ["rollback", "evaluate"])
def test_help_says_which_policy_is_meant_without_one(babylon: Babylon, command: str) -> None:
    meant = {"rollback": "the one served before", "evaluate": "the served one"}
    assert f"[default: ({meant[command]})]" in " ".join(babylon(command, "--help").stdout.split())


def test_a_policy_is_named_by_its_step_or_as_the_base_model(babylon: Babylon, ledger: Database) -> None:
    for name, step in (("@2", 2), (f"{CHAIN}@2", 2), ("@0", 0), ("base", 0)):
        assert json.loads(babylon("lineage", name, "--json").stdout)["policy"] == f"{CHAIN}@{step}"
    again = babylon("compare", "@2", f"{CHAIN}@2")
    assert (again.exit_code, "are the same policy; name two" in again.stderr) == (1, True)
    compared = json.loads(babylon("compare", "base", "@2", "--prompts", "0", "--json").stdout)
    assert (compared["first"], compared["second"]) == (f"{CHAIN}@0", f"{CHAIN}@2")
    assert "'@9' names no checkpoint" in babylon("lineage", "@9").stderr


def test_a_person_may_promote_what_was_refused(babylon: Babylon, ledger: Database) -> None:
    done = babylon("promote", f"{CHAIN}@3", "--why", "I know better")
    assert f"{CHAIN}@3 is served; before it was {CHAIN}@2" in done.stdout
    with ledger.connect() as conn:
        head, row = checkpoints.head(conn, CHAIN), promotions.history(conn, CHAIN)[-1]
    assert head is not None and (head.step, head.rejected) == (3, None)
    assert (row.why, row.verdict, row.kind) == ("I know better", None, "promotion")
    again = babylon("promote", f"{CHAIN}@3", "--why", "twice")
    assert again.exit_code == 1
    assert f"{CHAIN}@3 is served already" in again.stderr
    assert babylon("promote", "nobody@7", "--why", "x").exit_code == 1
    assert babylon("promote", f"{CHAIN}@2").exit_code == 2
    assert babylon("promote", f"{CHAIN}@2", "--why", " ").exit_code == 2


def test_what_cannot_be_served_is_not_promoted(babylon: Babylon, ledger: Database) -> None:
    with ledger.connect() as conn:
        conn.execute("UPDATE babylon_training.model_checkpoints SET path = '' WHERE step = 1")
        branch = checkpoint(2, LATER, dataset(sample(0)).id, chain="other", id="other-2", parent_id=f"{CHAIN}-1")
        checkpoints.insert_checkpoint(conn, branch)
    assert "were pruned" in babylon("rollback", "--why", "x").stderr
    assert "not of the chain babylon-agent" in babylon("promote", "other@2", "--why", "x").stderr


def test_promotions_say_what_was_live_at_a_time(babylon: Babylon, ledger: Database) -> None:
    told = json.loads(babylon("promotions", "--json").stdout)
    assert [(one["kind"], one["policy"], one["by"], one["window"]) for one in told] == [
        ("promotion", f"{CHAIN}@1", "gate", WINDOW),
        ("promotion", f"{CHAIN}@2", "gate", LATER),
        ("rejection", f"{CHAIN}@3", "gate", LATEST),
    ]
    table = babylon("promotions").stdout
    assert "it is worse" in table and table.split()[4] == "id" and f"{CHAIN}-2"[:12] in table
    with ledger.connect() as conn:
        upsert_window(conn, LATEST, status="trained", checkpoint_id=f"{CHAIN}-3")
    shown = babylon("status", LATEST).stdout
    assert "rejected: it is worse" in shown and "refused" not in shown
    moments = [datetime.fromisoformat(one["at"]) for one in told[:2]]
    asked = [moments[0] - timedelta(seconds=1), moments[0], moments[1]]
    live = [json.loads(babylon("promotions", "--at", at.isoformat(), "--json").stdout)["served"] for at in asked]
    assert live == [None, f"{CHAIN}@1", f"{CHAIN}@2"]
    assert "the base model" in babylon("promotions", "--at", "2020-01-01T14:00").stdout
    today = json.loads(babylon("promotions", "--at", "00:00", "--json").stdout)
    assert datetime.fromisoformat(today["at"]) == datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert babylon("promotions", "--at", "noon").exit_code == 2


def test_evaluate_plays_a_snapshot_and_the_market_once(
    babylon: Babylon, game_database: Database, taught_base: Path
) -> None:
    small = {"BASE_MODEL": str(taught_base), "EVALUATION_SEEDS": "8", "ENVIRONMENT": "simulated"}
    asked = ("evaluate", "--snapshot", str(SNAPSHOT), "--policy", "base", "--runs", "3", "--json")
    told = json.loads(babylon(*asked, **small).stdout)
    assert (told["policy"], told["evaluation"], told["runs"]) == (f"{CHAIN}@0", "snapshot:small", 3)
    assert told["optimal"] == pytest.approx(850)
    assert told["low"] <= told["pnl"] <= told["high"]
    assert json.loads(babylon(*asked, **small).stdout) == told
    market = json.loads(babylon("evaluate", "--json", **small).stdout)
    assert (market["policy"], market["evaluation"], market["seeds"]) == (f"{CHAIN}@0", "market", 8)
    with game_database.connect() as conn:
        kept = conn.execute("SELECT evaluation FROM babylon_training.checkpoint_evaluations ORDER BY 1").fetchall()
    assert kept == [("market",), ("snapshot:small",)]
    broken = babylon("evaluate", "--snapshot", __file__, "--policy", "base", **small)
    assert broken.exit_code == 1
    assert "no benchmark snapshot" in broken.stderr


def test_evaluate_refuses_what_cannot_be_played_here(babylon: Babylon, ledger: Database) -> None:
    refused = babylon("evaluate", "--policy", f"{CHAIN}@2")
    assert refused.exit_code == 1
    assert "cannot be evaluated here" in refused.stderr
