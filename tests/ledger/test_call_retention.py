"""Recorded calls keep their tokens for as long as is set, by the gateway's own clock where it is known."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.ledger import inference_calls
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import calls_by_id, drop_old_tokens, insert_calls
from tests.ledger.values import inference_call

NOW = datetime.now(UTC)


@pytest.fixture
def calls(database: Database) -> Database:
    """Calls of a game that is of last year: two days old, new, of an unknown day, and an old one without tokens."""
    with database.connect() as conn:
        insert_calls(
            conn,
            [
                inference_call(0, received_at=NOW - timedelta(days=2)),
                inference_call(1, received_at=NOW),
                inference_call(2),
                inference_call(3, prompt_token_ids=None, token_ids=None, logprobs=None),
            ],
        )
    return database


def test_only_old_tokens_go_and_the_texts_stay(calls: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_calls, "DROPPED_TOGETHER", 1)
    with calls.connect() as conn:
        before = calls_by_id(conn, [f"call-{number}" for number in range(4)])
        assert drop_old_tokens(conn, NOW - timedelta(days=1), dry_run=True) == 2
        assert drop_old_tokens(conn, NOW - timedelta(days=1)) == 2
        assert drop_old_tokens(conn, NOW - timedelta(days=1)) == 0
        after = calls_by_id(conn, list(before))
    assert {name for name, call in after.items() if call.token_ids is not None} == {"call-1"}
    assert after["call-0"].prompt_token_ids is None and after["call-0"].logprobs is None
    assert [call.messages for call in after.values()] == [before[name].messages for name in after]
    assert [call.response for call in after.values()] == [before[name].response for name in after]


def test_prune_removes_them_where_days_are_set(calls: Database, tmp_path: Path) -> None:
    def prune(*options: str) -> str:
        environment = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": calls.url, "KEEP_CALL_TOKENS_DAYS": "1"}
        return CliRunner().invoke(app, ["prune", *options], env=environment).stdout

    assert json.loads(prune("--dry-run", "--json"))["calls"] == 2
    assert "tokens of 2 calls removed" in prune()
    assert json.loads(prune("--json"))["calls"] == 0
