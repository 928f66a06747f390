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


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_page_may_send_anywhere_is_no_request(gateway_with: Gateways, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert ask(gateway_with(), headers) == (415, "unsupported_media_type")


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null", "file://", "http://[", ""])
def test_a_foreign_page_may_not_ask(gateway_with: Gateways, origin: str) -> None:
    gateway = gateway_with()
    assert ask(gateway, {**JSON, "origin": origin}) == (403, "foreign_origin")
    assert httpx.get(f"{gateway.root}/health", headers={"origin": origin}).status_code == 403
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.taken == 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", "["])
def test_a_name_that_a_page_made_its_own_is_not_the_gateways(gateway_with: Gateways, host: str) -> None:
    gateway = gateway_with()
    assert ask(gateway, {**JSON, "host": host, "origin": f"http://{host}"})[0] in (421, 403)
    assert ask(gateway, {**JSON, "host": host}) == (421, "wrong_host")
    assert httpx.get(f"{gateway.root}/health", headers={"host": host}).status_code == 421


def test_programs_ask_by_any_address(gateway_with: Gateways) -> None:
    gateway = gateway_with()
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
