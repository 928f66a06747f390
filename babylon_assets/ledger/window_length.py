"""The length of the windows that a home folder was begun with: a ledger holds windows of one length.

An id does not say the length of its window. A file in the home folder does; a ledger without it is of hours.
"""

from __future__ import annotations

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.database import Connection, Database

FILE = "window_minutes"


def check_window_length(settings: Settings, database: Database) -> None:
    """Check that WINDOW_MINUTES is what the ledger's windows have; note it where there are none yet.

    Raises:
        SettingsError: it is not; the message says what to do.
    """
    path = settings.home / FILE
    with database.connect() as conn:
        begun_before = _has_windows(conn)
    if begun_before:
        begun = int(path.read_text()) if path.is_file() else HOURLY.minutes
        if begun != settings.window_minutes:
            raise SettingsError(
                f"WINDOW_MINUTES is {settings.window_minutes}, but the ledger holds windows of {begun} minutes; "
                f"set WINDOW_MINUTES={begun}, or begin another ledger with another BABYLON_HOME and database"
            )
    if not path.is_file() or int(path.read_text()) != settings.window_minutes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{settings.window_minutes}\n")


def _has_windows(conn: Connection) -> bool:
    there = conn.execute("SELECT to_regclass('babylon_training.windows')").fetchone()
    if there is None or there[0] is None:
        return False
    return conn.execute("SELECT 1 FROM babylon_training.windows LIMIT 1").fetchone() is not None
