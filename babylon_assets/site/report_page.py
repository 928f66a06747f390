"""The report as `babylon report` wrote it last, with a note above it that says how old it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from babylon_assets.domain.errors import BabylonError
from babylon_assets.ledger.database import Connection
from babylon_assets.site.page_shell import HEADERS, Site

#: The report brings its own style along, and nothing that acts.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """When the report was written, and how many checkpoints were made since; None: the ledger does not answer."""

    at: datetime
    newer: int | None = None


def show_report(site: Site, request: Request) -> Response:
    """The file below a note on its age, or how to write one."""
    try:
        text = (site.settings.home / "report.html").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = "`babylon up` writes the first one when it starts. Type: babylon report. Then load this page again."
        return site.render("notice.html", title="No report was written yet", text=text, all=("All checkpoints", "/"))
    written = find_report(site)
    with suppress(BabylonError, psycopg.Error), site.connect() as conn:
        written = find_report(site, conn)
    note = site.render_part("report_note.html", written=written)
    head, body, rest = text.partition("<body>")
    text = f"{head}{body}\n{note}{rest}" if body else f"{note}{text}"
    return HTMLResponse(text, headers={**HEADERS, "content-security-policy": _POLICY})


def find_report(site: Site, conn: Connection | None = None) -> WrittenReport | None:
    """The report that lies in the home folder, or None."""
    try:
        written = datetime.fromtimestamp((site.settings.home / "report.html").stat().st_mtime, UTC)
    except OSError:
        return None
    if conn is None:
        return WrittenReport(written)
    query = "SELECT count(*) FROM babylon_training.model_checkpoints WHERE created_at > %s"
    ((newer,),) = conn.execute(query, [written]).fetchall()
    return WrittenReport(written, newer)
