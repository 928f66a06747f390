"""The report as `babylon report` wrote it last, with a note in it that says how old it is.

Its links lead to where the site and Dagster were when it was written. Here they lead to where both are now.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import unescape

import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from babylon_assets.domain.errors import BabylonError
from babylon_assets.domain.site_links import SITE
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.windows import count_changed
from babylon_assets.site.page_shell import HEADERS, Site

#: The report brings its own style along, and nothing that acts.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
#: What a report says of itself stands in so many of its first characters.
_HEAD = 2000
#: So many of the newest windows are looked at: the report lists no more.
_WINDOWS = 168


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """The report in the home folder.

    Attributes:
        at: when it was written, as it says itself; where it does not, when the file was.
        links_to: what the addresses of the site and of Dagster begin with in it; empty where it names none.
        newer: checkpoints that were made since; None: the ledger does not answer.
        changed: windows among the newest 168 that changed since.
    """

    at: datetime
    links_to: str
    newer: int | None = None
    changed: int = 0


def show_report(site: Site, request: Request) -> Response:
    """The file with a note on its age, or how to write one."""
    try:
        text = (site.settings.home / "report.html").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = "`babylon up` writes the first one when it starts. Type: babylon report. Then load this page again."
        return site.render("notice.html", title="No report was written yet", text=text, all=("All checkpoints", "/"))
    written = find_report(site)
    with suppress(BabylonError, psycopg.Error), site.connect() as conn:
        written = find_report(site, conn)
    if written is not None and written.links_to:
        dagster = "" if site.beside_dagster else f"http://127.0.0.1:{site.settings.dagster_port}"
        text = _lead_here(text, written.links_to, dagster)
    note = site.render_part("report_note.html", written=written)
    before, header, rest = text.partition("<header>")
    text = f"{before}{header}\n{note}{rest}" if header else f"{note}{text}"
    return HTMLResponse(text, headers={**HEADERS, "content-security-policy": _POLICY})


def find_report(site: Site, conn: Connection | None = None) -> WrittenReport | None:
    """The report that lies in the home folder, or None."""
    path = site.settings.home / "report.html"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD)
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None
    written = WrittenReport(_read_time(head) or modified, _read_meta(head, "report-links-to"))
    if conn is None:
        return written
    query = "SELECT count(*) FROM babylon_training.model_checkpoints WHERE created_at > %s"
    ((newer,),) = conn.execute(query, [written.at]).fetchall()
    return replace(written, newer=newer, changed=count_changed(conn, written.at, _WINDOWS))


def _read_time(head: str) -> datetime | None:
    try:
        return datetime.fromisoformat(_read_meta(head, "report-made-at")).astimezone(UTC)
    except ValueError:
        return None


def _read_meta(head: str, name: str) -> str:
    """What a report says of itself under this name; empty where it does not."""
    match = re.search(f'<meta name="{name}" content="([^"]*)">', head)
    return unescape(match[1]) if match else ""


def _lead_here(text: str, base: str, dagster: str) -> str:
    """The report with its links led from this base to where the site and Dagster are now."""
    for before, now in ((f"{base}{SITE}/", f"{SITE}/"), (f"{base}/", f"{dagster}/"), (f'{base}"', f'{dagster}/"')):
        text = text.replace(f'href="{before}', f'href="{now}')
    return text
