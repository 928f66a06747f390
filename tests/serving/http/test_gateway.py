"""The gateway over real HTTP: what OpenAI's own client gets, what is refused, what is recorded, who gets a place."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.trajectories import Message
from babylon_assets.ledger.adapter_weights import WEIGHTS
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import InferenceCall, calls_by_id
from babylon_assets.serving.engine.engine import Engine, Library
from babylon_assets.serving.http.keys import new_key
from babylon_assets.serving.http.server import MOST_BODY_BYTES
from tests.gateways import WINDOWS, Chain, RunningGateway, embedded, recomputed, wait_for

Gateways = Callable[..., RunningGateway]
ASKED: list[Any] = [{"role": "system", "content": "Trade."}, {"role": "user", "content": "A yes 40"}]
MESSAGES = [Message(each["role"], each["content"]) for each in ASKED]


@pytest.fixture
def gateway(gateway_with: Gateways) -> RunningGateway:
    return gateway_with()


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0) as made:
        yield made


def recorded(gateway: RunningGateway, database: Database, *ids: str) -> list[InferenceCall]:
    recorder = gateway.parts.recorder
    assert recorder is not None and recorder.flush(20)
    with database.connect() as conn:
        found = calls_by_id(conn, ids)
    return [found[each] for each in ids]


def test_an_answer_is_the_engines_own_and_recorded_as_it_was_sampled(
    gateway: RunningGateway, client: openai.OpenAI, database: Database, tiny_base: Path
) -> None:
    reply = client.chat.completions.create(
        model="babylon-agent",
        messages=ASKED,
        seed=7,
        max_tokens=12,
        temperature=0.7,
        user="agent-1",
        metadata={"trajectory": "t-1", "step": "4", "at": "2026-11-05T14:03:00+00:00"},
    )
    (expected,) = Engine(tiny_base).complete([MESSAGES], [7], max_tokens=12, temperature=0.7)
    (choice,) = reply.choices
    assert (choice.message.content, choice.finish_reason) == (expected.text, expected.finish_reason)
    assert reply.usage is not None and reply.usage.completion_tokens == len(expected.token_ids)
    assert reply.model == "babylon-agent@0"
    (call,) = recorded(gateway, database, reply.id)
    assert (call.response, list(call.messages)) == (expected.text, MESSAGES)
    assert (call.prompt_token_ids, call.token_ids) == (expected.prompt_token_ids, expected.token_ids)
    assert call.logprobs == expected.logprobs
    assert (call.policy, call.policy_step, call.temperature, call.seed) == ("babylon-agent@0", 0, 0.7, 7)
    assert (call.agent_id, call.trajectory_id, call.step) == ("agent-1", "t-1", 4)
    assert call.created_at.isoformat() == "2026-11-05T14:03:00+00:00"
    assert call.sampling == {"model": "babylon-agent", "top_p": 1.0, "max_tokens": 12, "choice": 0}
    assert call.latency_ms is not None and 0 < call.latency_ms < 60_000


def test_a_stream_brings_the_same_answer_piece_by_piece(
    gateway: RunningGateway, client: openai.OpenAI, database: Database
) -> None:
    given: dict[str, Any] = {"model": "base", "messages": ASKED, "seed": 3, "max_tokens": 20, "logprobs": True}
    whole = client.chat.completions.create(**given)
    chunks = list(client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True}))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == (
        whole.choices[0].message.content
    )
    assert len([each for each in chunks if each.choices and each.choices[0].delta.content]) > 1
    assert whole.choices[0].logprobs is not None and whole.choices[0].logprobs.content is not None
    streamed = [
        token.logprob
        for each in chunks
        if each.choices and each.choices[0].logprobs is not None
        for token in each.choices[0].logprobs.content or []
    ]
    assert streamed == [token.logprob for token in whole.choices[0].logprobs.content]
    assert chunks[-1].usage == whole.usage
    one, other = recorded(gateway, database, whole.id, chunks[0].id)
    assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_its_stop(client: openai.OpenAI, stream: bool) -> None:
    given: dict[str, Any] = {"model": "base", "messages": ASKED, "seed": 5, "max_tokens": 24}
    text = client.chat.completions.create(**given).choices[0].message.content or ""
    stop = text[8:11]
    at = text.index(stop)
    if stream:
        chunks = list(client.chat.completions.create(**given, stop=[stop], stream=True))
        assert "".join(each.choices[0].delta.content or "" for each in chunks) == text[:at]
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        choice = client.chat.completions.create(**given, stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == (text[:at], "stop")


def test_many_answers_to_one_question_differ_and_each_is_recorded(
    gateway: RunningGateway, client: openai.OpenAI, database: Database
) -> None:
    reply = client.chat.completions.create(
        model="base", messages=ASKED, seed=1, n=4, max_tokens=8, logprobs=True, top_logprobs=2, top_p=0.9
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in reply.choices}) == 4
    calls = recorded(gateway, database, reply.id, *(f"{reply.id}-{index}" for index in (1, 2, 3)))
    for choice, call in zip(reply.choices, calls, strict=True):
        assert call.response == choice.message.content
        assert choice.logprobs is not None and choice.logprobs.content is not None
        tokens = choice.logprobs.content
        assert [token.logprob for token in tokens] == (call.logprobs or [])[: len(tokens)]
        assert all(len(token.top_logprobs) == 2 for token in tokens)
        alone = client.chat.completions.create(model="base", messages=ASKED, seed=call.seed, max_tokens=8, top_p=0.9)
        assert alone.choices[0].message.content == call.response


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "babylon-agent@7"}, 404, "model"),
        ({"temperature": 3}, 400, "temperature"),
        ({"messages": []}, 400, "messages"),
        ({"n": 0}, 400, "n"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"ignored": ["top_k"]}, 400, "ignored"),
        ({"messages": [{"role": "y" * 100_000, "content": ""}]}, 400, "messages"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"metadata": {"step": "first"}}, 400, "metadata"),
        ({"messages": [{"role": "user", "content": "A yes 40 " * 3000}]}, 400, "messages"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    gateway: RunningGateway, changes: dict[str, Any], status: int, param: str
) -> None:
    body = {"model": "babylon-agent", "messages": ASKED, **changes}
    for stream in (False, True):
        reply = httpx.post(f"{gateway.url}/chat/completions", json={**body, "stream": stream})
        assert reply.status_code == status
        error = reply.json()["error"]
        assert (error["param"], error["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_ignored_is_told_counted_and_recorded(
    gateway: RunningGateway, database: Database, stream: bool
) -> None:
    ignored = {
        "top_k": 5,
        "repetition_penalty": 1.2,
        "tempreature": 0.1,
        "frequency_penalty": 0.5,
        "logit_bias": {"7": -100},
        "evil\r\nX-Header: 1": 1,
        **{f"field-{number:02d}": 1 for number in range(60)},
    }
    nothing: dict[str, Any] = {"store": False, "presence_penalty": 0, "parallel_tool_calls": None, "logit_bias_": {}}
    body = {"model": "base", "messages": ASKED, "max_tokens": 3, "stream": stream, **ignored, **nothing}
    reply = httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30)
    assert reply.status_code == 200
    names = reply.headers["x-babylon-ignored"].split(", ")
    assert len(names) == 32
    assert names[0] == "evil??X-Header??1"
    first = json.loads(reply.text.splitlines()[0].removeprefix("data: "))
    (call,) = recorded(gateway, database, first["id"])
    assert call.sampling is not None and call.sampling["ignored"] == names
    few = {"model": "base", "messages": ASKED, "max_tokens": 3, "top_k": 5, "tempreature": 0, **nothing}
    again = httpx.post(f"{gateway.url}/chat/completions", json=few, timeout=30)
    assert again.headers["x-babylon-ignored"] == "tempreature, top_k"
    metrics = httpx.get(f"{gateway.root}/metrics").text
    assert 'babylon_gateway_ignored_total{field="top_k"} 1.0' in metrics
    assert 'babylon_gateway_ignored_total{field="unknown"} 2.0' in metrics
    assert "tempreature" not in metrics


def test_a_longer_answer_than_is_allowed_is_cut(gateway_with: Gateways, database: Database) -> None:
    gateway = gateway_with(gateway_answer_tokens=5)
    body = {"model": "base", "messages": ASKED, "max_tokens": 100_000, "temperature": 0}
    reply = httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30).json()
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 5)
    (call,) = recorded(gateway, database, reply["id"])
    assert call.sampling is not None and call.sampling["max_tokens"] == 5


def test_the_bytes_of_tokens_are_the_answers_own(gateway: RunningGateway, client: openai.OpenAI) -> None:
    halves = 0
    for seed in range(4):
        reply = client.chat.completions.create(
            model="base", messages=ASKED, seed=seed, max_tokens=60, temperature=2, logprobs=True, top_logprobs=1
        )
        (choice,) = reply.choices
        assert choice.logprobs is not None and choice.logprobs.content is not None
        raw = [bytes(token.bytes or ()) for token in choice.logprobs.content]
        assert b"".join(raw).decode(errors="replace") == choice.message.content
        halves += sum(token.token == "\ufffd" and len(token.bytes or ()) == 1 for token in choice.logprobs.content)
        assert all(token.top_logprobs[0].bytes for token in choice.logprobs.content)
    assert halves > 0


def test_what_is_no_request_is_refused_in_openais_form(gateway_with: Gateways) -> None:
    gateway = gateway_with()
    where = f"{gateway.url}/chat/completions"
    as_json = {"content-type": "application/json"}
    assert httpx.post(where, content=b"{", headers=as_json).json()["error"]["code"] == "invalid_json"
    assert httpx.post(where, content=b" " * (MOST_BODY_BYTES + 1)).status_code == 413
    assert httpx.get(where).status_code == 405
    assert httpx.get(f"{gateway.root}/elsewhere").json()["error"]["code"] == "not_found"


def test_a_full_queue_says_when_to_come_back_and_who_leaves_frees_the_place(gateway_with: Gateways) -> None:
    gateway = gateway_with(gateway_batch=1, gateway_queue=1, gateway_answer_tokens=8000)
    load = gateway.parts.source.load
    body = {"model": "base", "messages": ASKED, "max_tokens": 8000, "temperature": 0}
    gone = [threading.Thread(target=_ask_and_leave, args=(gateway.url, body, after)) for after in (3.0, 0.7)]
    gone[0].start()
    wait_for(lambda: load() == (1, 0))
    gone[1].start()
    wait_for(lambda: load() == (1, 1))
    refused = httpx.post(f"{gateway.url}/chat/completions", json=body)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "queue_full"
    gone[1].join()
    time.sleep(0.1)
    assert load() == (1, 0)  # the first is answered still, and who waited is gone
    quick = httpx.post(f"{gateway.url}/chat/completions", json={**body, "max_tokens": 2}, timeout=30)
    assert quick.status_code == 200
    gone[0].join()
    wait_for(lambda: load() == (0, 0), 5)
    assert "babylon_gateway_cancelled_total 2.0" in httpx.get(f"{gateway.root}/metrics").text


def _ask_and_leave(url: str, body: dict[str, Any], after: float) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/chat/completions", json=body, timeout=httpx.Timeout(5, read=after))


def test_only_keys_open_it_where_keys_are_set(gateway_with: Gateways) -> None:
    key, digest = new_key()
    gateway = gateway_with(gateway_keys={"game": digest}, gateway_key_concurrency=2)
    body = {"model": "base", "messages": ASKED, "max_tokens": 2}
    for headers in ({}, {"authorization": "Bearer bab-guessed"}, {"authorization": key}):
        refused = httpx.post(f"{gateway.url}/chat/completions", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.get(f"{gateway.url}/models", headers=headers).status_code == 401
    with openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:
        assert client.chat.completions.create(model="base", messages=ASKED, max_tokens=2).choices
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="base", messages=ASKED, max_tokens=2, n=3)


def test_a_key_that_used_up_its_minute_waits(gateway_with: Gateways) -> None:
    gateway = gateway_with(gateway_key_tokens_per_minute=10)
    body = {"model": "base", "messages": ASKED, "max_tokens": 20, "stop": ["never said"]}
    assert httpx.post(f"{gateway.url}/chat/completions", json=body).status_code == 200
    refused = httpx.post(f"{gateway.url}/chat/completions", json=body)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 1


def test_a_promotion_is_served_within_two_seconds_and_nobody_is_answered_by_two(
    gateway_with: Gateways, chain: Chain, tiny_base: Path
) -> None:
    chain.add(1)
    chain.promote(0)
    gateway = gateway_with()
    ended = threading.Event()
    replies: list[tuple[float, Any]] = []
    askers = [threading.Thread(target=_keep_asking, args=(gateway.url, ended, replies)) for _ in range(4)]
    for each in askers:
        each.start()
    wait_for(lambda: len(replies) > 8)
    promoted_at = time.monotonic()
    chain.promote(1)
    wait_for(lambda: replies[-1][1]["model"] == "babylon-agent@1", 10)
    ended.set()
    for each in askers:
        each.join()
    first = min(asked for asked, reply in replies if reply["model"] == "babylon-agent@1")
    assert first - promoted_at < 2
    for _, reply in replies:
        step = int(reply["model"].partition("@")[2])
        (choice,) = reply["choices"]
        adapter = chain.adapter(step) if step else None
        expected = recomputed(tiny_base, adapter, reply["prompt_token_ids"], choice["token_ids"])
        told = [token["logprob"] for token in choice["logprobs"]["content"]]
        assert told == pytest.approx(expected[: len(told)], abs=1e-4)


def _keep_asking(url: str, ended: threading.Event, replies: list[tuple[float, Any]]) -> None:
    body = {"model": "babylon-agent", "messages": ASKED, "max_tokens": 16, "logprobs": True, "return_token_ids": True}
    with httpx.Client() as http:
        while not ended.is_set():
            asked = time.monotonic()
            reply = http.post(f"{url}/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            replies.append((asked, reply.json()))


def test_every_name_of_a_policy_leads_to_it(gateway_with: Gateways, chain: Chain) -> None:
    gateway = gateway_with()
    for step in (1, 2):
        chain.add(step)  # after the gateway began: it asks the ledger for names that it does not know
    with openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0) as client:
        for name, expected in {
            "babylon-agent@1": "babylon-agent@1",
            f"babylon-agent@{WINDOWS[2]}": "babylon-agent@2",
            "base": "babylon-agent@0",
        }.items():
            reply = client.chat.completions.create(model=name, messages=ASKED, max_tokens=2)
            assert reply.model == expected
        assert {"base", "babylon-agent", "babylon-agent@1", f"babylon-agent@{WINDOWS[1]}"} <= {
            model.id for model in client.models.list()
        }
        assert client.models.retrieve("babylon-agent@2").id == "babylon-agent@2"


def test_the_challenger_answers_its_share_of_agents_and_the_record_says_so(
    gateway_with: Gateways, chain: Chain, database: Database
) -> None:
    chain.add(1)
    chain.promote(0)
    gateway = gateway_with(canary_share=0.4, canary_policy="babylon-agent@1")
    agents = [f"agent-{number}" for number in range(40)]
    with openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0) as client:
        ask = partial(client.chat.completions.create, model="babylon-agent", messages=ASKED, max_tokens=1)
        first, second = ([ask(user=agent) for agent in agents] for _ in range(2))
        nobody = client.chat.completions.create(model="babylon-agent", messages=ASKED, max_tokens=1)
    assert [reply.model for reply in first] == [reply.model for reply in second]
    assert nobody.model == "babylon-agent@0"
    challenged = [reply.model == "babylon-agent@1" for reply in first]
    assert 8 <= sum(challenged) <= 24
    calls = recorded(gateway, database, *(reply.id for reply in first))
    assert [(call.policy, call.agent_id) for call in calls] == [
        (reply.model, agent) for reply, agent in zip(first, agents, strict=True)
    ]


@pytest.mark.parametrize("instead", ["nothing of use", "another policy's"])
def test_a_policy_whose_weights_are_broken_or_not_its_own_does_not_take_the_last_one_down(
    gateway_with: Gateways, chain: Chain, caplog: pytest.LogCaptureFixture, instead: str
) -> None:
    chain.add(1)
    chain.promote(0)
    gateway = gateway_with()
    other = chain.adapter(2)
    chain.add(2)
    content = (other / WEIGHTS).read_bytes() if instead == "another policy's" else instead.encode()
    (chain.adapter(1) / WEIGHTS).write_bytes(content)
    chain.promote(1)
    wait_for(lambda: "babylon-agent@1 cannot be served" in caplog.text, 10)
    reply = httpx.post(f"{gateway.url}/chat/completions", json={"model": "babylon-agent", "messages": ASKED, "n": 1})
    assert reply.json()["model"] == "babylon-agent@0"
    named = httpx.post(f"{gateway.url}/chat/completions", json={"model": "babylon-agent@1", "messages": ASKED})
    assert (named.status_code, named.json()["error"]["code"]) == (503, "weights_differ")


def test_health_and_metrics_say_how_it_is(gateway: RunningGateway, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="base", messages=ASKED, max_tokens=3, n=2)
    wait_for(lambda: json.loads(httpx.get(f"{gateway.root}/health").text)["status"] == "ok")
    told = httpx.get(f"{gateway.root}/health").json()
    assert (told["policy"], told["database"], told["records_lost"]) == ("babylon-agent@0", True, 0)
    text = httpx.get(f"{gateway.root}/metrics").text
    assert 'babylon_gateway_answers_total{policy="babylon-agent@0"} 2.0' in text
    assert 'babylon_gateway_requests_total{status="200"}' in text


def test_who_asks_for_old_policies_does_not_push_the_served_one_out(
    tmp_path: Path, database: Database, chain: Chain, tiny_base: Path
) -> None:
    for step in (1, 2, 3):
        chain.add(step)
    chain.promote(0)
    library = Library(tiny_base, kept=2)
    settings = Settings(home=tmp_path / "home")
    with RunningGateway(settings, database, embedded(library, settings)) as gateway:
        served = library.cached(None)
        assert served is not None
        for step in (1, 2, 3):
            body = {"model": chain.name(step), "messages": ASKED, "max_tokens": 1}
            assert httpx.post(f"{gateway.url}/chat/completions", json=body, timeout=30).status_code == 200
        assert library.cached(None) is served
        assert library.cached(chain.adapter(1)) is None
        chain.promote(3)
        wait_for(lambda: httpx.get(f"{gateway.root}/health").json()["policy"] == chain.name(3), 10)
        assert library.cached(chain.adapter(3)) is not None
