"""`babylon report`: one file, written whole, with what our tables, the game and the disk say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.cli.write_report import write, write_for_site
from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.windows import upsert_window
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory

Babylon = Callable[..., Result]
UNREAD = "2026-10-01T05:00"


@pytest.fixture
def babylon(tmp_path: Path, game_database: Database) -> Babylon:
    def run(*arguments: str, **environment: str) -> Result:
        given = {"BABYLON_HOME": str(tmp_path), "DATABASE_URL": game_database.url, **environment}
        return CliRunner().invoke(app, list(arguments), env=given)

    return run


def test_the_page_has_what_was_read_and_what_the_game_has_beyond_it(
    babylon: Babylon, game_database: Database, tmp_path: Path
) -> None:
    with game_database.connect() as conn:
        upsert_window(conn, "2026-10-01T04:00", status="failed", reason="SourceError: <b>why</b>")
        add_users(conn, "a1")
        add_trajectories(conn, trajectory("t1", windowId=UNREAD), trajectory("t2", windowId="2026-10-01"))
        add_trajectories(conn, trajectory("t3", windowId="2025-01-01T00:00"))
        upsert_window(conn, UNREAD, status="open", reference={"oracle": 0.5})
    listed = {row["window"]: row for row in json.loads(babylon("windows", "--json").stdout)}
    assert (listed[UNREAD]["trajectories"], listed[UNREAD]["oracle"]) == (1, 0.5)
    done = babylon("report")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report.html").read_text()
    assert done.stdout.strip() == str(tmp_path / "report.html")
    assert [
        text
        for text in ("1 window failed", "&lt;b&gt;why", UNREAD, "1 row has a windowId that is no window")
        if text not in page
    ] == []
    assert "2025-01-01T00:00" not in page  # before WINDOWS_FROM
    assert "GiB" in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_site_gets_its_report_or_the_reason_why_not(database: Database, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database.url)
    (tmp_path / "report.html").write_text("of before")
    assert write_for_site(settings, database) is None
    assert "No windows yet." in (tmp_path / "report.html").read_text()
    refusal = write_for_site(settings.replace(home=Path("/proc/none")), database)
    assert refusal is not None and refusal.endswith("type: babylon report")


def test_it_works_without_a_game_and_in_another_file(babylon: Babylon, database: Database, tmp_path: Path) -> None:
    wanted = tmp_path / "new" / "page.html"
    done = babylon("report", "--output", str(wanted), DATABASE_URL=database.url)
    assert done.exit_code == 0, done.output
    assert "No windows yet." in wanted.read_text()


def test_no_secret_is_on_the_page(babylon: Babylon, tmp_path: Path) -> None:
    assert babylon("report", WANDB_API_KEY="wandb-secret-key").exit_code == 0
    assert "wandb-secret-key" not in (tmp_path / "report.html").read_text()


def test_open_starts_a_browser_and_says_when_there_is_none(babylon: Babylon, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", lambda address: opened.append(address) or 0)
    assert babylon("report", "--open").exit_code == 0
    assert opened[0].startswith("file:///")
    assert opened[0].endswith("/report.html")
    monkeypatch.setattr("typer.launch", lambda address: 3)
    without = babylon("report", "--open")
    assert (without.exit_code, "no browser could be started here" in without.stderr) == (0, True)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write(path, "old")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(PermanentError, match=r"No space left on device; name another file with --output"):
        write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(PermanentError, match=rf"^{path}/below/page.html cannot be written: Not a directory; name"):
        write(path / "below" / "page.html", "new")
