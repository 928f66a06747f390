"""The site as an application: its addresses, its headers, and what an error becomes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BabylonError, TransientError
from babylon_assets.domain.site_links import SITE
from babylon_assets.ledger.database import Database
from babylon_assets.site import agent_pages, checkpoint_pages, comparison_page, playground, report_page, sample_pages
from babylon_assets.site.page_shell import HEADERS, STATEMENT_MS, Site, read_stylesheet
from babylon_assets.site.query_values import WrongValueError

Page = Callable[[Site, Request], Response]
PAGES: dict[str, Page] = {
    "/": checkpoint_pages.show_register,
    "/checkpoints/{name:path}": checkpoint_pages.show_checkpoint,
    "/samples": sample_pages.list_samples,
    "/sample": sample_pages.show_sample,
    "/sample.txt": sample_pages.download_sample,
    "/agents": agent_pages.show_agents,
    "/agent": agent_pages.show_agent,
    "/compare": comparison_page.show_comparison,
    "/playground": playground.open_playground,
    "/report": report_page.show_report,
}
_NOT_READY = "Nothing is in the ledger yet. Type: babylon demo, or babylon migrate for a database of your own."
_TOO_LONG = f"The database did not answer within {STATEMENT_MS // 1000} s. Narrow the search, or try again later."


def make_site(settings: Settings, open_database: Callable[[], Database], *, beside_dagster: bool = False) -> ASGIApp:
    """The site's application, with every page below `SITE`; whoever may ask is decided before it.

    Args:
        open_database: opens the ledger's database, at the first page that is asked for.
        beside_dagster: Dagster's UI is at the same address.
    """
    site = Site(settings, open_database, beside_dagster)
    stylesheet = Response(read_stylesheet(), media_type="text/css", headers={"cache-control": "max-age=300"})
    routes = [Route(SITE + path, partial(_answer, site, page), methods=["GET"]) for path, page in PAGES.items()]
    routes.append(Route(f"{SITE}/playground", partial(_answer_form, site), methods=["POST"]))
    routes.append(Route(f"{SITE}/style.css", lambda _: stylesheet))
    routes += [Route(path, lambda _: RedirectResponse(f"{SITE}/")) for path in (SITE, "/")]
    handlers: Any = {HTTPException: partial(_explain_http, site)}
    return _WithHeaders(Starlette(routes=routes, exception_handlers=handlers))


class SiteBeside:
    """ASGI middleware: what is below `SITE` is the site's, all else the other application's."""

    def __init__(self, other: ASGIApp, site: ASGIApp) -> None:
        self._other, self._site = other, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        is_ours = scope["type"] == "http" and (path == SITE or path.startswith(f"{SITE}/"))
        await (self._site if is_ours else self._other)(scope, receive, send)


def _answer(site: Site, page: Page, request: Request) -> Response:
    """A page, or what went wrong, as a page of its own."""
    try:
        return page(site, request)
    except WrongValueError as error:
        return _explain(site, 400, "That cannot be asked", str(error))
    except psycopg.errors.QueryCanceled:
        return _explain(site, 503, "That takes too long", _TOO_LONG)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return _explain(site, 200, "Nothing to see yet", _NOT_READY)
    except TransientError as error:
        return _explain(site, 503, "Not now", str(error))
    except BabylonError as error:
        return _explain(site, 404, "That is not here", str(error))


async def _answer_form(site: Site, request: Request) -> Response:
    """What the playground's form asked for."""
    try:
        body = await playground.read_body(request)
    except WrongValueError as error:
        return _explain(site, 413, "That is too long", str(error))
    ask = partial(playground.ask_playground, body=body)
    return await run_in_threadpool(_answer, site, ask, request)


def _explain_http(site: Site, request: Request, error: HTTPException) -> Response:
    return _explain(site, error.status_code, "That is not here", f"The site has no page {request.url.path}.")


def _explain(site: Site, status: int, title: str, text: str) -> Response:
    return site.render("notice.html", status, title=title, text=text)


class _WithHeaders:
    """ASGI middleware that gives every answer the site's headers, where it has none of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in there)]
            await send(message)

        await self._app(scope, receive, with_headers)
