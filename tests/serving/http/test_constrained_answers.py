"""JSON of a schema is sampled from what the schema allows, in every protocol; a hostile schema holds up no other."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.serving.engine import constraints
from babylon_assets.serving.engine.constraints import Constraint, Mask
from babylon_assets.serving.engine.texts import ChatTokenizer
from tests.gateways import RunningGateway
from tests.serving.http.test_forms import asked, events, post, recorded


@pytest.fixture
def gateway(shared_gateway: RunningGateway) -> RunningGateway:
    return shared_gateway


SCHEMA = {
    "type": "object",
    "properties": {"order": {"$ref": "#/$defs/order"}, "amount": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["order", "amount"],
    "additionalProperties": False,
    "$defs": {"order": {"enum": ["buy", "sell"]}},
}


def test_json_of_a_schema_is_sampled_from_what_the_schema_allows(gateway: RunningGateway, tiny_base: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "order", "schema": SCHEMA}}
    body = asked("chat/completions", response_format=form, max_tokens=100, temperature=1, seed=3, logprobs=True)
    reply = post(gateway, "chat/completions", body | {"top_logprobs": 3}).json()
    value = json.loads(reply["choices"][0]["message"]["content"])
    assert value["order"] in ("buy", "sell") and 1 <= value["amount"] <= 99
    kept = recorded(gateway, reply["id"])
    assert kept.sampling is not None and kept.sampling["response_format"]["json_schema"]["schema"] == SCHEMA
    assert max(kept.logprobs or ()) == 0.0  # where nothing else was allowed
    assert all(
        likely["logprob"] is not None
        for token in reply["choices"][0]["logprobs"]["content"]
        for likely in token["top_logprobs"]
    )
    assert kept.logprobs is not None and kept.logprobs == pytest.approx(
        masked_logprobs(tiny_base, kept.prompt_token_ids or (), kept.token_ids or ()), abs=1e-3
    )


def masked_logprobs(base: Path, prompt: Any, answer: Any) -> list[float]:
    """By transformers' own forward pass, over the tokens that llguidance allows at each place."""
    import llguidance
    import numpy as np
    import torch
    from llguidance.hf import from_tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from babylon_assets.serving.engine.constraints import _inline

    vocabulary = from_tokenizer(AutoTokenizer.from_pretrained(base))
    matcher = llguidance.LLMatcher(vocabulary, f"start: answer\nanswer: %json {_inline(SCHEMA)}")
    with torch.inference_mode():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    values = []
    for row, token in zip(logits, answer, strict=True):
        allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[: len(row)]
        masked = row.masked_fill(torch.from_numpy(allowed == 0), float("-inf"))
        values.append(float(masked.log_softmax(-1)[token]))
        matcher.consume_token(token)
    return values


def test_any_json_and_responses_formats_are_kept_to(gateway: RunningGateway) -> None:
    form = {"type": "json_object"}
    body = asked("chat/completions", response_format=form, max_tokens=60, temperature=1, seed=1)
    text = post(gateway, "chat/completions", body).json()["choices"][0]["message"]["content"]
    assert text.startswith("{")
    given = asked("responses") | {"text": {"format": {"type": "json_schema", "name": "order", "schema": SCHEMA}}}
    reply = post(gateway, "responses", given | {"max_output_tokens": 100}).json()
    assert json.loads(reply["output"][0]["content"][0]["text"]).keys() == {"order", "amount"}


def test_a_schema_that_cannot_be_followed_is_refused(gateway: RunningGateway) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "minProperties": -1}}}
    reply = post(gateway, "chat/completions", asked("chat/completions", response_format=form))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format"), reply.text


LARGE = {"type": "object", "properties": {f"field_{number}": {"type": "string"} for number in range(4000)}}


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (
            "chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": LARGE}}},
        ),
        ("chat/completions", {"tools": [{"function": {"name": "x", "parameters": LARGE}}], "tool_choice": "required"}),
        ("chat/completions", {"functions": [{"name": "x", "parameters": LARGE}], "function_call": {"name": "x"}}),
        ("responses", {"text": {"format": {"type": "json_schema", "name": "x", "schema": LARGE}}}),
        ("responses", {"tools": [{"type": "function", "name": "x", "parameters": LARGE}], "tool_choice": "required"}),
        ("messages", {"tools": [{"name": "x", "input_schema": LARGE}], "tool_choice": {"type": "any"}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_is_too_large_is_refused_in_every_protocol(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, path: str, more: dict[str, Any], stream: bool
) -> None:
    monkeypatch.setattr(ChatTokenizer, "prompt", lambda *_: [1, 2, 3])  # else the tools do not fit into it
    reply = post(gateway, path, asked(path, stream=stream) | more)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert "more than 4000 objects and listed values" in reply.json()["error"]["message"]


def test_an_answer_whose_mask_is_not_made_yet_holds_up_no_other(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "order", "schema": SCHEMA}}
    body = asked("chat/completions", response_format=form, max_tokens=100, temperature=1, seed=3, n=2, logprobs=True)
    alone = post(gateway, "chat/completions", body).json()["choices"]
    held, free, advance = threading.Event(), threading.Event(), Constraint._advance

    def wait(self: Constraint, token: int) -> Mask:
        held.set()
        assert free.wait(60)
        return advance(self, token)

    monkeypatch.setattr(Constraint, "_advance", wait)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(post, gateway, "chat/completions", body)
        assert held.wait(60)
        for path in ("chat/completions", "responses"):
            assert post(gateway, path, asked(path)).status_code == 200
        assert not late.done()
        free.set()
        assert late.result(60).json()["choices"] == alone


def test_an_answer_whose_mask_would_take_too_much_work_ends_with_an_error(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"type": "string", "pattern": "^.*a.{0,200}b.{0,200}c.{0,200}d.*$"}
    schema = {"type": "array", "items": item, "minItems": 3}
    monkeypatch.setitem(constraints._LIMITS, "step_lexer_fuel", 3000)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = asked("chat/completions", response_format=form, max_tokens=100, temperature=1, seed=1)
    refused = post(gateway, "chat/completions", body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
    assert "cannot be followed any further: " in refused.json()["error"]["message"]
    streamed = events(post(gateway, "chat/completions", body | {"stream": True}))
    assert "cannot be followed any further: " in streamed[-1]["error"]["message"]
    assert post(gateway, "chat/completions", asked("chat/completions")).status_code == 200
