"""A page in a browser on the host: it may not use a gateway that it can reach, whatever name it reaches it by."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from babylon_assets.serving.http.keys import new_key
from tests.gateways import RunningGateway

Gateways = Callable[..., RunningGateway]
BODY = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "max_tokens": 1, "user": "agent-7"}
JSON = {"content-type": "application/json"}


def ask(gateway: RunningGateway, headers: dict[str, str]) -> tuple[int, str | None]:
    """Status and code of what a request with these headers is answered with."""
    reply = httpx.post(f"{gateway.url}/chat/completions", content=json.dumps(BODY), headers=headers, timeout=30)
    return reply.status_code, reply.json().get("error", {}).get("code")


@pytest.fixture
def gateway(gateway_with: Gateways) -> RunningGateway:
    return gateway_with()


def test_what_a_page_may_send_anywhere_is_no_request(gateway: RunningGateway) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"):
        assert ask(gateway, {"content-type": kind}) == (415, "unsupported_media_type")
    assert ask(gateway, {}) == (415, "unsupported_media_type")


def test_a_foreign_page_may_not_ask(gateway: RunningGateway) -> None:
    for origin in ("https://evil.example", "http://localhost:3000", "null", "file://", "http://[", ""):
        assert ask(gateway, {**JSON, "origin": origin}) == (403, "foreign_origin")
        assert httpx.get(f"{gateway.root}/health", headers={"origin": origin}).status_code == 403
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.taken == 0


def test_a_name_that_a_page_made_its_own_is_not_the_gateways(gateway: RunningGateway) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", "["):
        assert ask(gateway, {**JSON, "host": host, "origin": f"http://{host}"}) == (421, "wrong_host")
        assert httpx.get(f"{gateway.root}/health", headers={"host": host}).status_code == 421


def test_programs_ask_by_any_address(gateway: RunningGateway) -> None:
    for host in ("127.0.0.1", "localhost:8000", "[::1]:8000", "10.0.0.7:8000", "LOCALHOST"):
        assert ask(gateway, {"content-type": "application/json; charset=utf-8", "host": host}) == (200, None)
    own = f"127.0.0.1:{gateway.port}"
    assert ask(gateway, {**JSON, "origin": f"http://{own}"}) == (200, None)


def test_names_and_pages_that_are_set_may_ask(gateway_with: Gateways) -> None:
    gateway = gateway_with(gateway_hosts="gateway.example", gateway_origins="https://desk.example")
    page = {**JSON, "host": "gateway.example", "origin": "https://desk.example"}
    assert ask(gateway, page) == (200, None)
    reply = httpx.get(f"{gateway.root}/health", headers=page)
    assert reply.headers["access-control-allow-origin"] == "https://desk.example"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,authorization"}
    assert httpx.options(f"{gateway.url}/chat/completions", headers={**page, **asks}).status_code == 200
    assert ask(gateway, {**page, "origin": "https://evil.example"}) == (403, "foreign_origin")


def test_with_keys_any_name_will_do_unless_names_are_set(gateway_with: Gateways) -> None:
    key, digest = new_key()
    headers = {**JSON, "host": "gateway.example", "authorization": f"Bearer {key}"}
    assert ask(gateway_with(gateway_keys={"game": digest}), headers) == (200, None)
    assert ask(gateway_with(gateway_keys={"game": digest}, gateway_hosts="another.example"), headers)[0] == 421
