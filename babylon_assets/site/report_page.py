"""The report as `babylon report` wrote it last, beside the pages that it links to."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from babylon_assets.site.page_shell import HEADERS, Site

#: The report brings its own style along, and nothing that acts.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def show_report(site: Site, request: Request) -> Response:
    """The file as it is, or how to write one."""
    try:
        text = (site.settings.home / "report.html").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = "`babylon up` writes the first one when it starts. Type: babylon report. Then load this page again."
        return site.render("notice.html", title="No report was written yet", text=text)
    return HTMLResponse(text, headers={**HEADERS, "content-security-policy": _POLICY})
