"""What stands before Dagster's UI: whose page asks, by which name, in which way, and with which key.

Dagster's webserver has no login, takes mutations by GET, and answers any name, any page and any WebSocket: a page in a
browser on the host could launch and delete runs. This is middleware in the webserver's own ASGI application.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from babylon_assets.serving.http.keys import Access
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.http.web_pages import WebPages, require_json

#: A WebSocket that is closed for who asks.
_POLICY = 1008
_WRONG_NAME = "Dagster's UI is not asked by that name; ask it by its address, or add the name to DAGSTER_HOSTS"
_FOREIGN = "another site may not ask Dagster's UI; open it in a tab of its own"
_BY_POST = "ask by POST, with Content-Type: application/json"


class UiGuard:
    """ASGI middleware; a request that may not be made is refused with a sentence, before Dagster sees it.

    Args:
        app: Dagster's webserver.
        keys: hash by name; who asks gives a name and its key as name and password, or the key as a bearer token.
            Empty: nobody is asked for one.
        hosts: names that the UI may be asked by, beside addresses and localhost. With keys and without hosts: any.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, str], hosts: Sequence[str]) -> None:
        self._app = app
        self._access = Access(keys, concurrency=1, tokens_per_minute=None)
        self._pages = WebPages(frozenset(hosts) if hosts or not keys else None, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _framed(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY, "reason": "refused"})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        try:
            self._pages.check(headers)
            _refuse_cross_site(scope, headers)
            _refuse_other_ways(scope, headers)
            self._access.who(_bearer(headers.get("authorization")))
        except ApiError as error:
            text = {421: _WRONG_NAME, 403: _FOREIGN, 405: _BY_POST, 415: _BY_POST}.get(error.status, "a key is needed")
            login = {"www-authenticate": 'Basic realm="Dagster", charset="UTF-8"'} if error.status == 401 else None
            return PlainTextResponse(text + "\n", error.status, login)
        return None


def _refuse_cross_site(scope: Scope, headers: Headers) -> None:
    """Refuse what another site's page sends; a link that is followed to a page of the UI is none."""
    site = headers.get("sec-fetch-site", "none")
    follows = scope.get("method") == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and (not follows or _is_graphql(scope)):
        raise ApiError(403, _FOREIGN)


def _refuse_other_ways(scope: Scope, headers: Headers) -> None:
    """Refuse GraphQL by GET, which would carry mutations, and in the forms that a page may send without asking."""
    if scope["type"] != "http" or not _is_graphql(scope):
        return
    if scope["method"] == "POST":
        require_json(headers)
    elif "query" in QueryParams(scope["query_string"]) or scope["method"] not in ("GET", "HEAD", "OPTIONS"):
        raise ApiError(405, _BY_POST)


def _is_graphql(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/graphql")


def _bearer(authorization: str | None) -> str | None:
    """The header with a password made into the key that it is; a browser can only ask for name and password."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        return "Bearer " + base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _framed(send: Send) -> Send:
    """Answers that no other site may put into a frame."""

    async def framed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-frame-options"] = "SAMEORIGIN"
        await send(message)

    return framed
