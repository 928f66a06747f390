"""A ledger holds windows of one length, and says so to whoever comes with another."""

from __future__ import annotations

from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.window_length import check_window_length
from babylon_assets.ledger.windows import upsert_window

WINDOW = "2026-11-05T14:00"


def test_another_length_is_refused_once_there_are_windows(database: Database, tmp_path: Path) -> None:
    quarters, days = (Settings(home=tmp_path, window_minutes=minutes) for minutes in (15, 1440))
    check_window_length(days, database)
    check_window_length(quarters, database)
    with database.connect() as conn:
        upsert_window(conn, WINDOW, status="open")
    check_window_length(quarters, database)
    with pytest.raises(SettingsError, match="windows of 15 minutes; set WINDOW_MINUTES=15, or begin another"):
        check_window_length(days, database)


def test_a_ledger_that_does_not_say_is_of_hours(database: Database, tmp_path: Path) -> None:
    with database.connect() as conn:
        upsert_window(conn, WINDOW, status="open")
    with pytest.raises(SettingsError, match="windows of 60 minutes"):
        check_window_length(Settings(home=tmp_path, window_minutes=15), database)
    check_window_length(Settings(home=tmp_path), database)
