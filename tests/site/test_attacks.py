"""What others try with the site: long and hostile ids, clients that vanish, servers that are no gateway."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
import pytest
from starlette.testclient import TestClient

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import DatabaseUnavailable
from babylon_assets.domain.site_links import link_agent, link_samples
from babylon_assets.domain.trajectories import Message
from babylon_assets.ledger.database import Database
from babylon_assets.site.application import make_site
from babylon_assets.site.gateway_questions import MOST_REPLY_BYTES, GatewayAnswer, ask_gateway
from babylon_assets.site.page_shell import HEADERS, PAGES_AT_ONCE, Site
from babylon_assets.site.playground import ASKED_AT_ONCE
from tests.gateways import wait_for
from tests.ledger.values import CHAIN
from tests.site.conftest import client_of, served
from tests.site.filled_ledger import HOSTILE, WINDOWS, add_window
from tests.site.test_pages import ACTIVE, Seen

FORM = [("a", f"{CHAIN}@1"), ("b", f"{CHAIN}@3"), ("role", "user"), ("content", "news")]


class Silent:
    """A server that takes questions and answers none; it knows which of them are still wanted."""

    def __init__(self) -> None:
        self.asked: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.asked.append(self._listening.accept()[0])
            except OSError:
                return

    def wanted(self) -> int:
        return sum(not _is_closed(asked) for asked in self.asked)

    def close(self) -> None:
        for opened in (self._listening, *self.asked):
            opened.close()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while part := connection.recv(65536):
            assert part
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


def _send(address: str, line: str = "POST /site/playground", version: str = "1.1") -> socket.socket:
    place = urlsplit(address)
    body = urlencode(FORM) if line.startswith("POST") else ""
    connection = socket.create_connection((str(place.hostname), int(place.port or 0)), 10)
    head = f"{line} HTTP/{version}\r\nhost: {place.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


def test_for_who_goes_away_nobody_is_asked_any_more(filled: Database, silent: Silent) -> None:
    """Forms that wait hold no thread; there are few at once, and the gateway is left as soon as their browsers are."""
    settings = Settings(environment="babylon", gateway_port=silent.port)
    with served(make_site(settings, lambda: filled)) as address:
        waiting = [_send(address) for _ in range(ASKED_AT_ONCE)]
        wait_for(lambda: silent.wanted() == 2 * ASKED_AT_ONCE)
        with _send(address) as refused:
            assert b"503" in refused.recv(12)
        with _send(address, version="1.0") as passed_on:  # as a proxy sends it that names nobody
            assert b"404" in passed_on.recv(12)
        for connection in waiting:
            connection.close()
        wait_for(lambda: silent.wanted() == 0)
        with _send(address):
            wait_for(lambda: silent.wanted() == 2)


class Stuck:
    """A database that lets whoever connects wait, and then does not answer."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.released = threading.Event()

    def connect(self) -> Any:
        self.begun.append(1)
        self.released.wait(30)
        raise DatabaseUnavailable("it does not answer")


def test_of_many_pages_few_are_made_at_once_and_none_for_who_has_gone() -> None:
    stuck = Stuck()
    with served(make_site(Settings(environment="babylon"), lambda: cast("Database", stuck))) as address:
        asking = [_send(address, "GET /site/") for _ in range(PAGES_AT_ONCE)]
        wait_for(lambda: len(stuck.begun) == PAGES_AT_ONCE)
        gone = [_send(address, "GET /site/") for _ in range(2 * PAGES_AT_ONCE)]
        _read_style(address)
        for connection in gone:
            connection.close()
        _read_style(address)
        stuck.released.set()
        assert [connection.recv(12) for connection in asking] == [b"HTTP/1.1 503"] * PAGES_AT_ONCE
        for connection in asking:
            connection.close()
    assert len(stuck.begun) == PAGES_AT_ONCE


def _read_style(address: str) -> None:
    """What is answered at once: the pages that wait hold up nobody."""
    with _send(address, "GET /site/style.css") as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_no_connection_of_a_page_writes(filled: Database) -> None:
    site = Site(Settings(environment="babylon"), lambda: filled)
    for connect in (site.connect, site.connect_source):
        with connect() as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("DELETE FROM babylon_training.promotions")
        with connect() as conn:
            assert conn.execute("SHOW statement_timeout").fetchone() == ("10s",)


def test_ids_of_any_length_and_script_lead_to_their_pages(database: Database) -> None:
    strange = "\u202e\u00e9\U0001f600 " * 40
    with database.connect() as conn:
        add_window(conn, WINDOWS[0], agents=1, texts=strange, names=strange)
    client = client_of(database)
    listed = client.get("/site/samples").text
    (sample,) = re.findall(r'href="(/site/sample\?[^"]+)"', listed)
    (agent,) = re.findall(r'href="(/site/agent\?[^"]+)"', listed)
    assert unescape(agent) == link_agent(f"{strange}0")
    page = client.get(unescape(sample))
    assert page.status_code == 200
    (whole,) = re.findall(r'href="(/site/sample.txt\?[^"]+)"', page.text)
    assert client.get(unescape(whole)).status_code == 200
    (asking,) = re.findall(r'href="(/site/playground\?[^"]+sample=[^"]+)"', page.text)
    reply = client.get(unescape(asking))
    (action,) = re.findall(r'action="([^"]+)" method="post"', reply.text)
    assert dict(parse_qsl(urlsplit(unescape(action)).query))["sample"] == f"{strange}t0-{WINDOWS[0]}/0/0"
    asked = client.post(unescape(action), content=urlencode(FORM))
    assert (asked.status_code, "The record" in asked.text) == (200, True)


def test_a_long_search_goes_on_with_all_its_words(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babylon_assets.site.sample_pages.MOST_LOOKED_AT", 1)
    text = client_of(filled).get(link_samples(text="é" * 900)).text
    (onward,) = re.findall(r'rel="next" href="([^"]+)"', text)
    assert dict(parse_qsl(urlsplit(unescape(onward)).query))["text"] == "é" * 900
    assert f'value="{"é" * 900}"' in text


def test_a_fault_is_a_page_that_says_nothing_of_it() -> None:
    def break_down() -> Database:
        raise RuntimeError("postgresql://somebody:secret@database.example/ledger")

    site = make_site(Settings(environment="babylon"), break_down)
    client = TestClient(site, base_url="http://127.0.0.1", client=("127.0.0.1", 1), raise_server_exceptions=False)
    for path in ("/site/", "/site/playground", "/site/nowhere", "/site"):
        reply = client.get(path, follow_redirects=False)
        assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
        assert not re.search("secret|somebody|Traceback|RuntimeError", reply.text)
    fault = client.get("/site/")
    assert (fault.status_code, "This page has a fault" in fault.text) == (500, True)
    assert client.get("/site/playground", headers={"host": "[::1"}).status_code == 404


def test_words_of_a_policy_and_of_a_gateway_do_not_act(filled: Database) -> None:
    logprobs = {"content": [{"token": HOSTILE, "logprob": -1.0}]}
    reply = {"model": HOSTILE, "choices": [{"message": {"content": HOSTILE}, "logprobs": logprobs}]}
    for spoken in (_reply(reply), _reply({**reply, "model": f"other {HOSTILE}"}), _reply(_refusal(HOSTILE), "400 No")):
        with speaking(spoken) as settings:
            site = make_site(settings.replace(environment="babylon"), lambda: filled)
            client = TestClient(site, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
            form = {"a": HOSTILE, "role": "user", "content": HOSTILE, "seed": "1"}
            page = Seen(client.post("/site/playground", data=form).text)
        assert "textarea" in page.tags
        assert (page.tags & ACTIVE, page.handlers) == (set(), [])


def test_no_part_of_a_secret_is_shown(database: Database) -> None:
    secret = "a-secret-that-must-not-show"
    with database.connect() as conn:
        add_window(conn, WINDOWS[0], agents=1, spoken=f"{'x' * 190}{secret}")
    listed = client_of(database).get("/site/samples").text
    assert "xxx" in listed and "a-secret" not in listed
    logprobs = {"content": [{"token": part, "logprob": 0.0} for part in (secret[:9], secret[9:])]}
    reply = {"model": "m", "choices": [{"message": {"content": secret}, "logprobs": logprobs}]}
    with speaking(_reply(reply)) as settings:
        site = make_site(settings.replace(environment="babylon", wandb_api_key=secret), lambda: database)
        client = TestClient(site, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
        page = client.post("/site/playground", data={"a": "m", "role": "user", "content": "x"}).text
    assert "***" in page and "a-secret" not in page and secret[9:] not in page


def _refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


@contextmanager
def speaking(reply: bytes) -> Iterator[Settings]:
    """The settings of a gateway that is something else: it says this to whoever asks."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listening.accept()[0] as asked:
            asked.recv(65536)
            asked.sendall(reply)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield Settings(gateway_port=listening.getsockname()[1])
    thread.join(10)
    listening.close()


def _reply(body: Any, status: str = "200 OK", *headers: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, f"content-length: {len(text)}", "", ""]).encode() + text


def _spoken(**choice: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": {"content": "hello"}, **choice}]}


OTHERS = [
    (b"SSH-2.0-server\r\n", "does not answer"),
    (_reply([]), "could not be read"),
    (_reply({"model": "m", "choices": []}), "could not be read"),
    (_reply(_spoken(logprobs={"content": [{"token": "a", "logprob": None}]})), "could not be read"),
    (_reply({**_spoken(), "model": "other" * 1000}), "(5,000 characters) answered in its place"),
    (_reply(b"\xff", "500 Oh"), "refused: status 500"),
    (_reply(_refusal("x" * 1000), "400 Bad"), "(1,000 characters)"),
    (_reply(b"", "307 Away", "location: http://127.0.0.1:1/v1/chat/completions"), "refused: status 307"),
]


def _ask(settings: Settings, key: str = "") -> GatewayAnswer:
    return asyncio.run(
        ask_gateway(settings.gateway, "m", [Message("user", "x")], seed=0, temperature=0, max_tokens=3, key=key)
    )


@pytest.mark.parametrize(("reply", "says"), OTHERS)
def test_what_is_no_gateway_is_said(reply: bytes, says: str) -> None:
    with speaking(reply) as settings:
        assert says in _ask(settings).error


def test_of_a_reply_no_more_is_kept_than_was_asked_for() -> None:
    tokens = [{"token": "a", "logprob": 0.5}] * 10
    with speaking(_reply(_spoken(logprobs={"content": tokens}))) as settings:
        answer = _ask(settings)
    assert (answer.text, answer.tokens, answer.length) == ("hello", (("a", 1.0),) * 3, 3)
    ended = {**_spoken(logprobs={"content": tokens[:1]}), "usage": {"completion_tokens": 2}}
    with speaking(_reply(ended)) as settings:
        answer = _ask(settings)
    assert (len(answer.tokens), answer.length) == (1, 2)  # with the token that ended it, as the record has it
    with speaking(_reply(b" " * MOST_REPLY_BYTES + json.dumps(_spoken()).encode())) as settings:
        assert "could not be read" in _ask(settings).error


def test_a_key_with_other_characters_is_sent_nowhere() -> None:
    for key in ("two\nlines", "schlüssel"):
        assert "No key of the gateway" in _ask(Settings(gateway_port=1), key).error
