"""What `babylon up` says of the loop while it runs, and the report that it keeps up to date for the site."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

import psycopg

from babylon_assets.config.settings import Settings
from babylon_assets.domain.display_text import neutralize_line, shorten
from babylon_assets.domain.errors import BabylonError
from babylon_assets.domain.verdict_table import explain_decision
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.ledger.loop_events import LoopEvent, events_since, server_time, trainings_that_run

LOOK_SECONDS = 3.0
#: A training that goes on is named again after so long.
REMIND_AFTER = timedelta(minutes=1)
#: The report is written at most so often; a home that has none gets one after as long.
REPORT_SECONDS = 120.0
#: A row's time is that of its transaction's beginning, and it is seen at the end: so far back is looked each time.
OVERLAP = timedelta(minutes=30)
LONGEST = 300


class LoopWatch:
    """Looks at the ledger and says what is new in it, a sentence each.

    Args:
        say: is given the sentences.
        write_report: writes the report, and returns why it could not.
    """

    def __init__(
        self, settings: Settings, database: Database, say: Callable[[str], None], write_report: Callable[[], str | None]
    ) -> None:
        self._database, self._say, self._write_report = database, say, write_report
        self._began: datetime | None = None
        self._seen: set[tuple[str, str]] = set()
        #: How long each training was running when it was named last.
        self._named: dict[str, timedelta] = {}
        self._report_is_old = not (settings.home / "report.html").exists()
        self._written = time.monotonic()

    def run(self) -> None:
        """Look for ever: a thread of a process that ends otherwise."""
        while True:
            self.look(time.monotonic())
            time.sleep(LOOK_SECONDS)

    def look(self, now: float) -> None:
        """Look once. A database that does not answer is asked again the next time.

        Args:
            now: seconds of a clock that never goes back.
        """
        try:
            with self._database.connect() as conn:
                fresh, running = self._fresh_events(conn), trainings_that_run(conn)
        except (BabylonError, psycopg.Error):
            return
        for sentence in (*map(describe_event, fresh), *self._reminders(running)):
            self._say(sentence)
        self._report_is_old |= bool(fresh)
        if self._report_is_old and now - self._written >= REPORT_SECONDS:
            self._report_is_old, self._written = False, now
            if refusal := self._write_report():
                self._say(refusal)

    def _fresh_events(self, conn: Connection) -> list[LoopEvent]:
        now = server_time(conn)
        self._began = self._began or now
        events = events_since(conn, max(self._began, now - OVERLAP))
        fresh = [event for event in events if (event.kind, event.key) not in self._seen]
        self._seen = {(event.kind, event.key) for event in events}
        return fresh

    def _reminders(self, running: Mapping[str, timedelta]) -> Iterator[str]:
        self._named = {window: self._named.get(window, timedelta()) for window in running}
        for window, since in running.items():
            if since - self._named[window] >= REMIND_AFTER:
                self._named[window] = since
                yield f"still training {window}: {since.total_seconds() / 60:.0f} min"


def describe_event(event: LoopEvent) -> str:
    """An event as a sentence on one line."""
    policy = event.policy or "a checkpoint"
    sentence = {
        "training": f"training {event.window}",
        "trained": f"{event.window} is trained: {policy}",
        "skipped": f"{event.window} was not trained",
        "failed": f"the training of {event.window} failed",
        "thin": f"{event.window} is thin",
        "refused": f"the gate refused {policy}",
        "promotion": f"{policy} is promoted",
        "rollback": f"rolled back to {policy}",
    }[event.kind]
    why = explain_decision(event.why, event.verdict or {}) if event.why else ""
    return neutralize_line(shorten(f"{sentence}: {why}" if why and event.kind != "trained" else sentence, LONGEST))
