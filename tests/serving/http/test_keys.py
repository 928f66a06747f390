"""Keys and where the gateway may listen."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.config.settings import Settings, printable
from babylon_assets.domain.errors import PermanentError, SettingsError
from babylon_assets.domain.joining import join_calls
from babylon_assets.domain.policies import Caller
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.serving.http.keys import Access, hashed, new_key
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.http.server import listen
from babylon_assets.serving.policy_registry import in_share
from tests.domain.rows import record, step
from tests.gateways import Chain, RunningGateway, wait_for


def test_a_key_is_printed_once_with_a_hash_that_opens_for_it() -> None:
    printed = CliRunner().invoke(app, ["serve", "--new-key", "game"])
    assert printed.exit_code == 0, printed.output
    found = re.search(r"(bab-\S+)", printed.output), re.search(r"game:([0-9a-f]{64})", printed.output)
    assert found[0] and found[1]
    assert hashed(found[0][1]) == found[1][1]
    settings = Settings(gateway_keys={"game": found[1][1]})
    assert found[0][1] not in repr(settings) + repr(printable(settings))
    assert Access(settings.gateway.keys, 1, None).who(f"Bearer {found[0][1]}") == "game"


def test_each_key_is_known_by_its_own_name_and_no_other_opens() -> None:
    (one, first), (other, second) = new_key(), new_key()
    access = Access({"one": first, "other": second}, 1, None)
    assert access.who(f"Bearer {one}") == "one"
    assert access.who(f"bearer {other}") == "other"
    for wrong in (None, "", f"Bearer {first}", f"Basic {one}", f"Bearer {one[:-1]}"):
        with pytest.raises(ApiError) as refused:
            access.who(wrong)
        assert refused.value.status == 401


def test_places_are_given_back_however_a_request_ends() -> None:
    access = Access({}, 2, None)
    with pytest.raises(ZeroDivisionError), access.place("a", 2):
        with pytest.raises(ApiError), access.place("a", 1):
            pass
        raise ZeroDivisionError
    with access.place("a", 2):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_nobody_else_is_let_in_without_keys(host: str) -> None:
    with pytest.raises(SettingsError, match="--new-key"):
        listen(GatewaySettings(host=host))


def test_a_taken_port_is_named_with_what_to_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PermanentError, match=f"GATEWAY_PORT={port + 1}"):
            listen(GatewaySettings(port=port))


def test_a_share_of_the_agents_is_close_to_what_was_set_and_only_grows() -> None:
    agents = [f"agent-{number}" for number in range(4000)]
    tenth, half = ({agent for agent in agents if in_share(agent, share)} for share in (0.1, 0.5))
    assert len(tenth) == pytest.approx(400, abs=60)
    assert len(half) == pytest.approx(2000, abs=130)
    assert tenth < half
    assert not any(in_share(agent, 0) for agent in agents)
    assert all(in_share(agent, 1) for agent in agents)


def test_a_bound_key_speaks_for_its_agents_and_nobody_else_does() -> None:
    (_, first), (_, second), (_, third) = new_key(), new_key(), new_key()
    keys = Settings(gateway_keys=f"anna:{first}:anna-*|eve,game:{second},bob:{third}:bob").gateway.keys
    access = Access(keys, 1, None)
    allowed = [("anna", Caller("anna-1")), ("anna", Caller("eve", "t1")), ("game", Caller("carl", "t1"))]
    allowed += [("anna", Caller()), ("game", Caller(None, "t1")), ("bob", Caller("bob"))]
    for name, caller in allowed:
        access.require_own_agent(name, caller)
    refused = [("anna", Caller("bob")), ("anna", Caller("annaX")), ("anna", Caller(None, "t1"))]
    refused += [("game", Caller("anna-2")), ("game", Caller("bob")), ("bob", Caller("eve"))]
    for name, caller in refused:
        with pytest.raises(ApiError) as error:
            access.require_own_agent(name, caller)
        assert (error.value.status, error.value.code) == (403, "agent_not_allowed")


@pytest.mark.parametrize("form", ["a:{}:", "a:{}:x:y", "a:{}:x||y", "a:{}: x", "a:{}:x,a:{}", "a::{}"])
def test_a_key_of_another_form_is_refused(form: str) -> None:
    digest = new_key()[1]
    with pytest.raises(SettingsError, match="name:hash:agents"):
        Settings(gateway_keys=form.format(digest, digest))


def test_a_call_keeps_the_name_of_its_key_and_the_gateways_own_time(
    gateway_with: Callable[..., RunningGateway], database: Database
) -> None:
    (key, digest), (other, second) = new_key(), new_key()
    gateway = gateway_with(gateway_keys=f"anna:{digest}:anna-*,game:{second}")
    body = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "max_tokens": 2, "user": "anna-1"}
    stated = {"x-babylon-at": "2026-11-05T14:03:00+00:00", "x-babylon-trajectory": "t1"}
    before = datetime.now(UTC)
    reply = httpx.post(
        f"{gateway.url}/chat/completions", json=body, headers=stated | {"authorization": f"Bearer {key}"}
    )
    assert reply.status_code == 200
    refused = httpx.post(f"{gateway.url}/chat/completions", json=body, headers={"authorization": f"Bearer {other}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "agent_not_allowed")
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.flush(20)
    with database.connect() as conn:
        [call] = calls_by_id(conn, [reply.json()["id"]]).values()
        assert conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone() == (1,)
    assert (call.key_name, call.agent_id, call.trajectory_id) == ("anna", "anna-1", "t1")
    assert call.received_at is not None and before <= call.received_at <= datetime.now(UTC)
    assert call.created_at == datetime(2026, 11, 5, 14, 3, tzinfo=UTC)


def test_what_another_key_says_of_an_agent_changes_nothing_of_its_trajectory(
    gateway_with: Callable[..., RunningGateway], database: Database
) -> None:
    """A live episode through the gateway: its agent asks, another key claims its steps before, meanwhile and after."""
    (key, digest), (other, second) = new_key(), new_key()
    gateway = gateway_with(gateway_keys=f"game:{digest},mallory:{second}")
    began = datetime.now(UTC)

    def ask(secret: str, number: int, **said: str) -> str:
        body = {"model": "base", "messages": [{"role": "user", "content": f"A yes 4{number}"}], "max_tokens": 1}
        headers = {"authorization": f"Bearer {secret}", **{f"x-babylon-{name}": text for name, text in said.items()}}
        reply = httpx.post(f"{gateway.url}/chat/completions", json=body, headers=headers)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["id"])

    place = {"agent": "a1", "trajectory": "t1"}
    hostile = [ask(other, 0, trajectory="t1", step="0"), ask(other, 0, agent="mallory", trajectory="t1", step="1")]
    honest = [ask(key, number, **place, step=str(number)) for number in range(3)]
    hostile += [ask(other, number, **place, step=str(number)) for number in (0, 1, 1, 2)]
    hostile += [ask(other, 2, **place, at=began.isoformat()), ask(other, 1, agent="a1")]
    assert gateway.parts.recorder is not None and gateway.parts.recorder.flush(20)
    with database.connect() as conn:
        calls = calls_by_id(conn, [*honest, *hostile])
    made = int(began.timestamp() * 1000)
    rows = [step(number, llmCalls=[], timestamp=made + number) for number in range(3)]
    episode = record(rows, agent_id="a1", start_time=began, end_time=datetime.now(UTC))
    joined = join_calls([episode], calls)
    assert [(sample.raw.step, sample.raw.call_id) for sample in joined.samples] == list(enumerate(honest))
    assert joined.counts["calls_of_other_agents"] == 2 and joined.counts["calls_ambiguous"] == 0
    assert joined.counts["calls_of_other_keys"] == len(hostile) - 2


@pytest.mark.parametrize("asked", ["question", "model"])
def test_who_asks_for_names_that_nobody_knows_takes_places_and_no_one_elses_time(
    gateway_with: Callable[..., RunningGateway], chain: Chain, asked: str
) -> None:
    """The ledger does not answer who looks for policies; the others judge answers and have weights loaded meanwhile."""
    for number in (1, 2):
        chain.add(number)  # the second is served, and the first is not loaded yet
    (flood, digest), (honest, second) = new_key(), new_key()
    gateway = gateway_with(gateway_keys=f"mallory:{digest},game:{second}", gateway_key_concurrency=40)
    with ThreadPoolExecutor(44) as threads, httpx.Client(timeout=15, limits=httpx.Limits(max_connections=48)) as client:

        def ask(number: int) -> int:
            name, headers = f"babylon-agent@{900 + number}", {"authorization": f"Bearer {flood}"}
            if asked == "model":
                return client.get(f"{gateway.url}/models/{name}", headers=headers).status_code
            body = {"model": name, "messages": [{"role": "user", "content": "A yes 40"}], "max_tokens": 1}
            return client.post(f"{gateway.url}/chat/completions", json=body, headers=headers).status_code

        with chain.database.connect() as locking:
            locking.execute("LOCK TABLE babylon_training.model_checkpoints IN ACCESS EXCLUSIVE MODE")
            flooding = [threads.submit(ask, number) for number in range(44)]
            wait_for(lambda: sum(reply.done() for reply in flooding) == 4, 10)
            assert gateway.parts.access.held("mallory") == 40
            judgment = {"agent": "a1", "at": "2026-11-05T14:03:00+00:00", "value": 1}
            headers = {"authorization": f"Bearer {honest}"}
            question = {"model": "babylon-agent@1", "messages": [{"role": "user", "content": "A"}], "max_tokens": 1}
            for path, body in (("feedback", judgment), ("chat/completions", question)):
                assert client.post(f"{gateway.url}/{path}", json=body, headers=headers).status_code == 200
        assert sorted(reply.result(20) for reply in flooding) == [404] * 40 + [429] * 4
