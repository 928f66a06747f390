"""The site as an application: its addresses, its headers, and what an error becomes."""

from __future__ import annotations

import asyncio
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
from babylon_assets.serving.http.streaming import Watch
from babylon_assets.site import agent_pages, checkpoint_pages, comparison_page, playground, report_page, sample_pages
from babylon_assets.site.page_shell import HEADERS, STATEMENT_MS, Site, read_stylesheet
from babylon_assets.site.query_values import TooLongError, WrongValueError

Page = Callable[[Site, Request], Response]
PAGES: dict[str, Page] = {
    "/": checkpoint_pages.show_register,
    "/checkpoints/{name:path}/card": checkpoint_pages.show_card,
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
#: Where a page that is not there leads to, by the first part of its address, and where all others do.
LISTS = {
    **dict.fromkeys(("sample", "sample.txt", "samples"), ("All samples", "/samples")),
    **dict.fromkeys(("agent", "agents"), ("All agents", "/agents")),
    "compare": ("Compare two policies", "/compare"),
}
ALL = ("All checkpoints", "/")
#: Errors that a page explains.
_EXPECTED = (
    WrongValueError,
    psycopg.errors.QueryCanceled,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    BabylonError,
)
#: For the log alone: the client does not read it any more.
_CLIENT_GONE = 499
_TOO_LONG = f"The database did not answer within {STATEMENT_MS // 1000} s. Narrow the search, or try again later."


def make_site(settings: Settings, open_database: Callable[[], Database], *, beside_dagster: bool = False) -> ASGIApp:
    """The site's application, with every page below `SITE`; whoever may ask is decided before it.

    Args:
        open_database: opens the ledger's database, at the first page that is asked for.
        beside_dagster: Dagster's UI is at the same address.
    """
    site = Site(settings, open_database, beside_dagster)
    stylesheet = Response(read_stylesheet(), media_type="text/css", headers={"cache-control": "max-age=300"})
    routes = [Route(SITE + path, partial(_answer_page, site, page), methods=["GET"]) for path, page in PAGES.items()]
    routes.append(Route(f"{SITE}/playground", partial(_answer_form, site), methods=["POST"]))
    routes.append(Route(f"{SITE}/style.css", lambda _: stylesheet))
    routes += [Route(path, lambda _: RedirectResponse(f"{SITE}/")) for path in (SITE, "/")]
    handlers: Any = {HTTPException: partial(_explain_http, site), Exception: partial(_explain_fault, site)}
    return _WithHeaders(Starlette(routes=routes, exception_handlers=handlers))


class SiteBeside:
    """ASGI middleware: what is below `SITE` is the site's, all else the other application's."""

    def __init__(self, other: ASGIApp, site: ASGIApp) -> None:
        self._other, self._site = other, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        is_ours = scope["type"] == "http" and (path == SITE or path.startswith(f"{SITE}/"))
        await (self._site if is_ours else self._other)(scope, receive, send)


async def _answer_page(site: Site, page: Page, request: Request) -> Response:
    """A page, or what went wrong, as a page of its own."""
    try:
        return await _make(site, request, partial(page, site, request))
    except _EXPECTED as error:
        return _explain_error(site, request, error)


async def _answer_form(site: Site, request: Request) -> Response:
    """What the playground's form asked for; nobody is asked any more for a client that has gone."""
    try:
        playground.require_here(request)
        body = await playground.read_body(request)
        async with site.places:
            question = await run_in_threadpool(playground.read_question, site, request, body)
        if (address := playground.address_of(request, question)) is not None:
            return RedirectResponse(address, 307)  # the browser sends the form again, there
        watch = Watch(request.receive)
        try:
            answers = await playground.ask_policies(site, question)
        except asyncio.CancelledError:
            if not watch.client_gone:
                raise
            return Response(status_code=_CLIENT_GONE)
        finally:
            watch.end()
        return await _make(site, request, partial(playground.show_answers, site, question, answers))
    except _EXPECTED as error:
        return _explain_error(site, request, error)


async def _make(site: Site, request: Request, page: Callable[[], Response]) -> Response:
    """A page, once there is a place; none for a client that has gone meanwhile."""
    async with site.places:
        if await request.is_disconnected():
            return Response(status_code=_CLIENT_GONE)
        return await run_in_threadpool(page)


def _explain_error(site: Site, request: Request, error: Exception) -> Response:
    explain = partial(_explain, site, request)
    if isinstance(error, WrongValueError):
        status, title = (413, "That is too long") if isinstance(error, TooLongError) else (400, "That cannot be asked")
        return explain(status, title, str(error))
    if isinstance(error, psycopg.errors.QueryCanceled):
        return explain(503, "That takes too long", _TOO_LONG)
    if isinstance(error, psycopg.Error):
        return explain(200, "Nothing to see yet", _NOT_READY)
    if isinstance(error, TransientError):
        return explain(503, "Not now", str(error))
    return explain(404, "That is not here", str(error))


def _explain_fault(site: Site, request: Request, error: Exception) -> Response:
    """What nobody foresaw; the server logs it."""
    return _explain(
        site, request, 500, "This page has a fault", "The page could not be made. The log of the site says why."
    )


def _explain_http(site: Site, request: Request, error: HTTPException) -> Response:
    return _explain(site, request, error.status_code, "That is not here", f"The site has no page {request.url.path}.")


def _explain(site: Site, request: Request, status: int, title: str, text: str) -> Response:
    """A page that says what is wrong, with a way on to what its address is about."""
    page = request.url.path.removeprefix(f"{SITE}/").split("/")[0]
    return site.render("notice.html", status, title=title, text=text, all=LISTS.get(page, ALL))


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
