"""Files that somebody made to stop an import, to fill the memory, or to be stored where it is trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.trajectories import Quarantined
from babylon_assets.environments.files import bounds
from babylon_assets.environments.files.entries import Entry, art_entries
from babylon_assets.environments.files.parquet_rows import MEMORY, parquet_rows
from babylon_assets.ledger.database import Database

FIRST = "2025-11-05T14:00"
HOSTILE: list[tuple[str, Any]] = [
    ("facts", {"timestamp_ms": 10**17}),
    ("facts", {"moment_ms": -(10**17)}),
    ("facts", {"step": 10**12}),
    ("facts", {"action_type": "x" * 1_000_000}),
    ("facts", {"ticker": {"a": float(10**300), "b": 10**400}}),
    ("trajectory_id", "x" * 1_000_000),
    ("agent_id", "x" * 1_000_000),
    ("window", "x" * 1_000_000),
    ("policy", "x" * 1_000_000),
    ("components", {"x" * 1_000_000: 1.0}),
    ("components", {"profit": 10**300}),
    ("prompt_token_ids", [10**12]),
    ("step", 10**12),
]
STORED: list[tuple[str, Any]] = [
    ("facts", {"error": "a\0b", "action_type": "a\0b", "ticker": "a\0b"}),
    ("agent_id", "a\0b"),
    ("policy", f"babylon-agent@{'9' * 5_000}"[:200]),
    ("components", {"a\0b": 1.0}),
]


@pytest.mark.parametrize("levels", [100, 900, 980, 100_000])
def test_what_is_nested_too_deeply_costs_one_answer(levels: int) -> None:
    asked = [{"role": "user", "content": "?"}]
    deep = "[" * levels + "]" * levels
    answer = {"role": "assistant", "content": "yes"}
    members: list[dict[str, Any]] = [
        {"messages_and_choices": [*asked, answer], "metadata": {"more": "@"}},
        {"messages_and_choices": [*asked, answer], "more": "@"},
        {"messages_and_choices": [*asked, answer], "tools": [{"type": "function", "function": {"name": "@"}}]},
        {"messages_and_choices": [*asked, answer], "tools": ["@"]},
        {"messages_and_choices": [*asked, {**answer, "tool_calls": [{"function": {"name": "f", "arguments": "@"}}]}]},
        {
            "messages_and_choices": [
                {"role": "user", "content": [{"type": "text", "text": "?", "more": "@"}, "@"]},
                answer,
            ]
        },
    ]
    line = json.dumps({"trajectories": [{**member, "reward": 1.0} for member in members]}).replace('"@"', deep)
    entries = list(art_entries([line.encode()], FIRST))
    assert [entry.place for entry in entries if isinstance(entry, Entry)] == [
        "line 1 trajectory 0",
        "line 1 trajectory 1",
    ]
    reasons = [entry.reason for entry in entries if not isinstance(entry, Entry)]
    assert len(reasons) == 4 + (levels > 200)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_one_hostile_row_costs_one_row_whatever_it_says(database: Database, tmp_path: Path, form: str) -> None:
    facts = {"step": 0, "timestamp_ms": 1762351200000, "moment_ms": 1762351200000, "action_type": "", "invalid": False}
    rows: list[dict[str, Any]] = []
    for number, (field, value) in enumerate([("model", "plain"), *STORED, *HOSTILE]):
        changed = {**facts, **value} if field == "facts" else value
        whole: dict[str, Any] = {"trajectory_id": f"t{number}", "facts": facts, "window": FIRST, field: changed}
        rows.append(
            {**whole, "facts": json.dumps(whole["facts"]), "components": json.dumps(whole.get("components", {}))}
        )
    asked, answered = {"role": "user", "content": "a\0?"}, {"role": "assistant", "content": "\0yes"}
    file = tmp_path / f"hostile.{form}"
    if form == "jsonl":
        members = [{"messages_and_choices": [asked, answered], "reward": 1.0, "metadata": row} for row in rows]
        file.write_text("\n".join(json.dumps({"trajectories": [member]}) for member in members))
    else:
        import polars

        told = [{**row, "messages": json.dumps([asked]), "response": "\0yes"} for row in rows]
        told = [{**row, "prompt_token_ids": None} if row.get("prompt_token_ids") else row for row in told]
        told = [{**row, "step": min(row.get("step") or 0, 2**62)} for row in told]
        polars.DataFrame(told, infer_schema_length=None).write_parquet(file)
    environment = {"DATABASE_URL": database.url, "BABYLON_HOME": str(tmp_path)}
    result = CliRunner().invoke(app, ["import", str(file), "--json"], env=environment)
    [summary] = json.loads(result.stdout)
    assert summary["window"] == FIRST
    assert summary["imported"] >= 1 + len(STORED)
    assert summary["imported"] + summary["refused"] >= len(rows)
    assert summary["refused"] >= len(HOSTILE) - 1


def test_a_parquet_file_that_expands_without_bound_is_not_read_on(tmp_path: Path) -> None:
    import polars

    file = tmp_path / "bomb.parquet"
    polars.select(polars.repeat("x" * 200, 3_000_000).alias("response")).write_parquet(file)
    assert file.stat().st_size < 100_000
    with pytest.raises(PermanentError, match=r"more than 2,000,000 rows; split it"):
        sum(1 for _ in parquet_rows(file))
    with pytest.raises(PermanentError, match=r"expands to too much to be held; split it"):
        sum(1 for _ in parquet_rows(file, memory=500 << 20))


def test_a_value_that_python_has_no_form_for_costs_its_row(tmp_path: Path) -> None:
    import polars

    file, far = tmp_path / "far.parquet", polars.Series("reward", [0, 2**62, 1])
    for column in (far.cast(polars.Datetime("ms")), polars.Series("reward", [0, 2**100, 1], dtype=polars.Int128)):
        whole = polars.DataFrame({"response": ["a", "b", "c"]}).with_columns(column)
        polars.concat([whole] * 500).write_parquet(file)
        assert [row and row["response"] for row in parquet_rows(file)] == ["a", None, "c"] * 500


def test_a_group_without_end_is_one_refusal() -> None:
    line = b'{"trajectories":[' + b"{}," * bounds.GROUP + b"{}]}"
    [refused] = art_entries([line], FIRST)
    assert isinstance(refused, Quarantined) and refused.reason.startswith("more than 10,000 trajectories")


def test_a_decoder_that_waits_for_ever_is_ended(tmp_path: Path) -> None:
    """As polars does where a thread of its own could not be had; here for a file that nobody writes into."""
    os.mkfifo(tmp_path / "silent.parquet")
    stuck = (
        "import sys; from babylon_assets.environments.files import parquet_rows as decoder\n"
        "decoder.STUCK_SECONDS = 3.0\n"
        "sys.exit(decoder.main(sys.argv[1:], sys.stdout.buffer))"
    )
    command = [sys.executable, "-c", stuck, str(tmp_path / "silent.parquet"), str(MEMORY)]
    assert subprocess.run(command, timeout=50, check=False).returncode == 5


def test_a_line_that_is_too_long_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LINE", 100)
    content = BytesIO(b"a\n" + b"b" * 100 + b"\n" + b"c" * 1000 + b"\n" + b"d")
    assert list(bounds.lines_of(content)) == [b"a\n", None, None, b"d"]
