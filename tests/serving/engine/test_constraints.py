"""Schemas that clients send are followed; those that would hold up others are refused before any grammar is made."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pydantic
import pytest

from babylon_assets.serving.answers import Question, Target
from babylon_assets.serving.engine import constraints, fair_thread, grammar_trial, grammar_trials, schema_bounds
from babylon_assets.serving.engine.constraints import Constrainer, grammar_of
from babylon_assets.serving.engine.fair_thread import FairThread
from babylon_assets.serving.engine.grammar_trial import NICE
from babylon_assets.serving.engine.grammar_trials import GrammarTrials
from babylon_assets.serving.engine.schema_bounds import MOST_PARTS, UnboundedSchemaError, require_bounded
from babylon_assets.serving.engine.texts import ChatTokenizer
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.offered_tools import OfferedTools
from babylon_assets.serving.tool_call_texts import json_types
from tests.serving.engine.test_call_forms import allows, tokenizer_of

Schema = dict[str, Any]
ASKED = Question(Target("m@0", 0), [], [1], 10, 1.0, 1.0, (), None, key="anna")


def question(schema: Schema) -> Question:
    return replace(ASKED, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def tools(count: int, schema: Schema) -> Question:
    listed = [{"type": "function", "function": {"name": f"tool_{at}", "parameters": schema}} for at in range(count)]
    return replace(ASKED, tools=OfferedTools(listed, "required"))


def closed(properties: Schema, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def fields(count: int, schema: Schema | None = None) -> Schema:
    return {f"field_{at}": schema or {"type": "string"} for at in range(count)}


def nested(depth: int, leaf: Schema) -> Schema:
    return closed({"inner": nested(depth - 1, leaf), "name": {"type": "string"}}, required=["inner"]) if depth else leaf


#: As pydantic writes optional fields, references with a title, unions and a model that holds itself.
PYDANTIC = closed(
    {
        "reason": {
            "anyOf": [{"type": "string", "maxLength": 400}, {"type": "null"}],
            "default": None,
            "title": "Reason",
        },
        "order": {"$ref": "#/$defs/Order", "description": "What to do. " * 200},
        "base": {"allOf": [{"$ref": "#/$defs/Order"}], "default": {"side": "buy"}},
        "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        "kind": {
            "oneOf": [{"$ref": "#/$defs/Order"}, {"$ref": "#/$defs/Node"}],
            "discriminator": {"propertyName": "x"},
        },
        "at": {"type": "string", "format": "date-time"},
        "id": {"type": "string", "pattern": "^[a-z]{2,8}-[0-9]+$"},
        "amounts": {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 1, "maxItems": 1000},
    },
    required=["order"],
    **{
        "$defs": {
            "Order": closed({"side": {"enum": ["buy", "sell"], "type": "string"}}, required=["side"]),
            "Node": closed({"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}),
        }
    },
)
#: What an agent of the game may do: one of several actions, each with fields of its own.
ACTIONS = {
    "anyOf": [
        closed(
            {"action": {"const": name}, "marketId": {"type": "string"}, "amount": {"type": "number", "minimum": 0}},
            required=["action"],
        )
        for name in ("buy_yes", "buy_no", "sell", "open_perp", "close_perp", "post", "comment", "message", "hold")
    ]
}
FOLLOWED: dict[str, tuple[Question, str]] = {
    "pydantic": (question(PYDANTIC), '{"order": {"side": "sell"}, "id": "ab-1"}'),
    "actions": (question(ACTIONS), '{"action": "hold"}'),
    "fifty fields": (question(closed(fields(50))), '{"field_3": "x", "field_49": "y"}'),
    "nested": (
        question(nested(6, closed(fields(50)))),
        '{"inner": ' * 6 + '{"field_1": "x"}' + ', "name": "n"}' * 6,
    ),
    "many tools": (
        tools(128, closed(fields(8), required=["field_0"])),
        '<tool_call>\n{"name": "tool_127", "arguments": {"field_0": "x"}}\n</tool_call>',
    ),
    "all of two": (
        question({"allOf": [{"type": "object", "properties": fields(20)}, {"properties": {"a": {"type": "null"}}}]}),
        '{"field_1": "x", "a": null}',
    ),
    "one of two that may both hold": (
        question(
            {
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {name: {"type": "object", "properties": {name: {"type": "string"}}} for name in "ab"},
            }
        ),
        '{"b": "x"}',
    ),
    "any": (replace(ASKED, response_format={"type": "json_object"}), '{"a": [1, {"b": null}]}'),
}


def references(count: int) -> Schema:
    chain = {f"a{at}": {"$ref": f"#/$defs/a{at + 1}"} for at in range(count)}
    return {"$ref": "#/$defs/a0", "$defs": {**chain, f"a{count}": {"type": "string"}}}


def doubled(levels: int) -> Schema:
    both = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**both, f"a{levels}": closed(fields(10))}}


REFUSED: dict[str, tuple[Schema, str]] = {
    "properties": (closed(fields(4000)), "objects and listed values"),
    "open properties": ({"type": "object", "properties": fields(401)}, "400 properties in one object"),
    "required": ({"type": "object", "required": list(fields(401))}, "400 properties in one object"),
    "bytes": ({"type": "object", "description": "x" * 300_000}, "262144 bytes"),
    "references": (references(4001), "4000 objects and listed values"),
    "values": ({"enum": list(range(5000))}, "4000 objects and listed values"),
    "texts": ({"enum": [f"value {at}" for at in range(4000)]}, "4000 objects and listed values"),
    "a long value": ({"type": "object", "properties": {"a": {"const": {"b": ["ab " * 400]}}}}, "1000 characters"),
    "a long name": (closed({"x" * 1001: {}}), "1000 characters"),
    "a long pattern": ({"type": "string", "pattern": "(a|b)*" * 200}, "1000 characters"),
    "patterns": (closed(fields(101, {"type": "string", "pattern": "^.*a.{2,30}$"})), "100 patterns and formats"),
    "formats": (closed(fields(101, {"type": "string", "format": "email"})), "100 patterns and formats"),
    "names": ({"type": "object", "patternProperties": fields(101)}, "100 patterns and formats"),
    "the least integer": ({"type": "object", "properties": {"a": {"const": -(2**63)}}}, "from -1e18 to 2"),
    "a large number": ({"type": "number", "maximum": 1e300}, "a number in it is 1e"),
    "a small number": ({"type": "number", "minimum": 1e-300}, "no fraction smaller than 1e-18"),
    "a multiple": ({"multipleOf": 2147483648}, "10000 for all multipleOf together"),
    "multiples": (closed(fields(400, {"type": "number", "multipleOf": 99.73})), "10000 for all multipleOf together"),
    "all at once": (doubled(60), "have to hold at the same time"),
    "beside alternatives": (
        closed(fields(60, {"anyOf": [{"type": "null"}], "properties": {}})),
        "have to hold at the same time",
    ),
    "alternatives": (
        closed(fields(20, {"allOf": [{"anyOf": [{"type": "null"}] * 40}, {"properties": fields(40)}]})),
        "have to hold at the same time",
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return ChatTokenizer(tiny_base)


@pytest.fixture
def constrainer(tokenizer: ChatTokenizer) -> Constrainer:
    return tokenizer.constrainer


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_schemas_of_clients_are_followed(
    tokenizer: ChatTokenizer, constrainer: Constrainer, tiny_base: Path, name: str
) -> None:
    asked, text = FOLLOWED[name]
    (constraint,) = asyncio.run(constrainer.constraints(asked))
    assert allows(constraint, [*tokenizer_of(tiny_base).encode(text, add_special_tokens=False), tokenizer.end])


class Buy(pydantic.BaseModel):
    kind: Literal["buy"]
    amount: float = pydantic.Field(gt=0, le=1e9)


class Hold(pydantic.BaseModel):
    kind: Literal["hold"] = "hold"
    until: datetime | None = None
    why: str | None = pydantic.Field(default=None, max_length=200, description="In a sentence.")


class Plan(pydantic.BaseModel):
    """What `instructor` and `pydantic-ai` ask for: it holds itself, and one of several."""

    step: Buy | Hold = pydantic.Field(discriminator="kind")
    steps: list[Buy | Hold] = pydantic.Field(default_factory=list, max_length=20)
    next: Plan | None = None
    notes: dict[str, float] = {}
    pair: tuple[int, str] = (1, "a")


def test_a_model_of_pydantic_is_followed(tokenizer: ChatTokenizer, constrainer: Constrainer, tiny_base: Path) -> None:
    wide = pydantic.create_model("Wide", **dict.fromkeys(fields(50), (str | None, None)))  # type: ignore[call-overload]
    deep = Plan(step=Buy(kind="buy", amount=2.5), steps=[Hold(until=datetime(2026, 11, 5, tzinfo=UTC))])
    for value in (deep, Plan(step=Hold(), next=deep, notes={"a": 1.5}), wide(field_7="x")):
        text = json.dumps(value.model_dump(mode="json"))
        (constraint,) = asyncio.run(constrainer.constraints(question(type(value).model_json_schema())))
        assert allows(constraint, [*tokenizer_of(tiny_base).encode(text, add_special_tokens=False), tokenizer.end])


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("as_tool", [False, True])
def test_a_schema_that_is_too_dear_is_refused_before_a_grammar_is_made(
    constrainer: Constrainer, monkeypatch: pytest.MonkeyPatch, name: str, as_tool: bool
) -> None:
    import llguidance

    made: list[object] = []
    monkeypatch.setattr(llguidance, "LLMatcher", lambda *given, **more: made.append(given))
    schema, bound = REFUSED[name]
    with pytest.raises(ApiError, match=bound) as refused:
        asyncio.run(constrainer.constraints(tools(2, schema) if as_tool else question(schema)))
    assert (refused.value.status, refused.value.param) == (400, "tools" if as_tool else "response_format")
    assert not made


def test_the_bounds_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    bounds = [schema_bounds.MOST_BYTES, MOST_PARTS, schema_bounds.MOST_PROPERTIES, schema_bounds.MOST_PATTERNS]
    bounds += [schema_bounds.LONGEST_TEXT, schema_bounds.MOST_COMBINED, schema_bounds.MOST_MULTIPLES]
    assert all(f" | {bound:,} |" in text for bound in bounds)
    assert f"after {constraints.LONGEST_WAIT:g} seconds" in text


def test_what_tools_have_together_is_bounded() -> None:
    schema = closed(fields(60))
    require_bounded([schema] * 60)
    with pytest.raises(UnboundedSchemaError, match=str(MOST_PARTS)):
        require_bounded([schema] * 70)


def test_the_longest_chain_of_references_does_not_end_the_process(constrainer: Constrainer) -> None:
    levels = {f"a{at}": closed({"x": {"$ref": f"#/$defs/a{at + 1}"}}) for at in range(1300)}
    deep = {"$ref": "#/$defs/a0", "$defs": {**levels, "a1300": {"type": "string"}}}
    for schema in (deep, references(3990)):
        assert asyncio.run(constrainer.constraints(question(schema)))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 2**62},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2**62},
        {"type": "string", "minLength": 2**40},
        {"type": "string", "pattern": "^(a{1,1000}){1,1000}b{1000}$"},
        {"type": "integer", "minimum": -(10**18), "maximum": 2**63 - 1},
        {"$ref": "#"},
        {"$ref": "https://example.org/schema"},
        {
            "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
            "$defs": {name: closed({"x": {"$ref": f"#/$defs/{name}"}}, required=["x"]) for name in "ab"},
        },
    ],
)
def test_large_counts_and_circles_are_followed_or_refused(constrainer: Constrainer, schema: Schema) -> None:
    try:
        assert asyncio.run(constrainer.constraints(question(schema)))
    except ApiError as refused:
        assert (refused.status, refused.code) == (400, "invalid_value")
        assert len(str(refused)) < 400


@pytest.mark.parametrize(
    ("schema", "seconds", "reason"),
    [
        ({"type": "object", "properties": {"a": {"const": -(2**63)}}}, 60, "llguidance ends when it reads it"),
        ({"multipleOf": 2147483648}, 0.3, r"takes more than 0\.3 seconds"),
    ],
)
def test_a_schema_that_ends_whoever_reads_it_or_never_lets_go_is_refused(
    constrainer: Constrainer, monkeypatch: pytest.MonkeyPatch, schema: Schema, seconds: float, reason: str
) -> None:
    monkeypatch.setattr(constraints, "require_bounded", lambda _schemas: None)
    monkeypatch.setattr(grammar_trial, "LONGEST", seconds)
    monkeypatch.setattr(constrainer, "_trials", GrammarTrials())
    for _ in range(2):
        with pytest.raises(ApiError, match=reason) as refused:
            asyncio.run(constrainer.constraints(question(schema)))
        assert (refused.value.status, refused.value.param) == (400, "response_format")
        assert asyncio.run(constrainer.constraints(question(ACTIONS)))


def test_a_grammar_that_passed_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trials, "KEPT", 1)
    trials, grammars = GrammarTrials(), [grammar_of(question(closed(fields(count))), "hermes") for count in (1, 2)]
    trials.try_out(grammars[0], {})
    with monkeypatch.context() as patched:
        patched.setattr(trials, "_try", lambda *_: pytest.fail("it is tried"))
        trials.try_out(grammars[0], {})
    assert trials._process is not None
    assert _ignored(trials._process.pid, signal.SIGINT)  # Ctrl-C, after which the gateway answers to the end
    assert os.getpriority(os.PRIO_PROCESS, trials._process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICE
    trials._process.kill()
    trials._process.wait()
    trials.try_out(grammars[1], {})  # by another process
    tried: list[str] = []
    monkeypatch.setattr(trials, "_try", lambda grammar, _limits: tried.append(grammar))
    trials.try_out(grammars[0], {})
    assert tried == grammars[:1]


def _ignored(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) >> (number - 1) & 1)


def test_the_thread_of_grammars_gives_way(constrainer: Constrainer) -> None:
    work = constrainer._grammars.submit("", lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert work.result(10) == os.getpriority(os.PRIO_PROCESS, 0) + NICE


def test_definitions_stand_in_a_grammar_of_xml_only_where_they_are_referred_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = constraints._xml_value, list[str]()

    def count(rule: str, schema: Any, root: Any) -> str:
        written.append(rule)
        return write(rule, schema, root)

    monkeypatch.setattr(constraints, "_xml_value", count)
    shared = {"$defs": {"order": {"enum": ["x" * 900] * 100}}}
    assert len(grammar_of(tools(1, closed(fields(100, {"type": "integer"}), **shared)), "xml")) < 50_000
    with pytest.raises(UnboundedSchemaError, match="1000000 characters"):
        grammar_of(tools(1, closed(fields(100, {"type": "integer", "x": {"$ref": "#/$defs/order"}}), **shared)), "xml")
    assert len(written) < 120  # of the second, no more than what passes the bound
    few = closed(fields(6, {"type": "integer", "x": {"$ref": "#/$defs/order"}}), **shared)
    assert len(grammar_of(tools(1, few), "xml")) > 500_000
    with pytest.raises(UnboundedSchemaError, match="1000000 characters"):
        grammar_of(tools(2, few), "xml")


def test_the_types_of_an_argument_are_looked_for_in_a_bounded_part_of_its_schema() -> None:
    read: list[str] = []

    class Noted(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            read.append(name)
            return super().get(name, default)

    json_types({"anyOf": [Noted(type="integer") for _ in range(4000)]}, {})
    assert len(read) < 1000
    assert json_types({"type": 5}, {}) == set()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Grammars of the key `mallory` are made only once this is set."""
    free, make = threading.Event(), constraints.grammar_of

    def wait(asked: Question, form: constraints.CallForm) -> str:
        if asked.key == "mallory":
            free.wait(60)
        return make(asked, form)

    monkeypatch.setattr(constraints, "grammar_of", wait)
    yield free
    free.set()


def test_a_key_waits_for_one_grammar_of_another_at_most(
    constrainer: Constrainer, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def ask(key: str, number: int) -> None:
        await constrainer.constraints(replace(question(closed({f"a{number}": {}})), key=key))
        order.append(key)

    async def crowd() -> None:
        hostile = [asyncio.create_task(ask("mallory", number)) for number in range(20)]
        await asyncio.sleep(0)
        honest = asyncio.create_task(ask("anna", 0))
        await asyncio.sleep(0.05)  # so that the first has taken some time
        held.set()
        await asyncio.gather(honest, *hostile)

    asyncio.run(crowd())
    assert order.index("anna") <= 1


def test_masks_are_made_for_keys_in_turn(constrainer: Constrainer) -> None:
    free, order, hostile = threading.Event(), list[str](), replace(question(ACTIONS), key="mallory", seeds=[1] * 9)
    waiting = asyncio.run(constrainer.constraints(hostile)) + asyncio.run(constrainer.constraints(question(ACTIONS)))
    constrainer._masks.submit("mallory", lambda: free.wait(60))
    for key, constraint in zip(["mallory"] * 9 + ["anna"], waiting, strict=True):
        refused = constraint.next.result().refused
        assert refused is not None
        constraint.accept(int(refused.int().argmin()))
        constraint.next.add_done_callback(lambda _, key=key: order.append(key))  # type: ignore[misc]
    time.sleep(0.05)  # mallory has had this long
    free.set()
    assert [constraint.next.result(60).error for constraint in waiting] == [""] * 10
    assert order[0] == "anna"


def test_a_schema_that_takes_too_long_is_refused_and_holds_up_no_other(
    constrainer: Constrainer, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraints, "LONGEST_WAIT", 0.05)
    with pytest.raises(ApiError, match=r"within 0\.05 seconds") as refused:
        asyncio.run(constrainer.constraints(replace(question(ACTIONS), key="mallory")))
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "schema_timeout", 1)
    held.set()
    monkeypatch.setattr(constraints, "LONGEST_WAIT", 30.0)
    assert asyncio.run(constrainer.constraints(question(ACTIONS)))


def test_a_thread_remembers_what_a_key_has_had_and_leaves_out_what_was_cancelled() -> None:
    thread, begun, free = FairThread("test"), threading.Event(), threading.Event()
    order: list[str] = []

    def hold() -> None:
        begun.set()
        free.wait(60)

    first = thread.submit("mallory", hold)
    begun.wait(60)
    waiting = [thread.submit("mallory", lambda: order.append("mallory")) for _ in range(3)]
    waiting[0].cancel()
    last = [thread.submit("anna", lambda: order.append("anna")) for _ in range(3)]
    broken = thread.submit("bob", lambda: 1 // 0)
    time.sleep(0.1)  # mallory has had this long
    free.set()
    for future in (first, *waiting[1:], *last):
        future.result(60)
    assert order == ["anna"] * 3 + ["mallory"] * 2
    assert isinstance(broken.exception(60), ZeroDivisionError)


def test_a_key_that_comes_back_is_not_new(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order, thread, begun, free = [0.0], list[str](), FairThread("test"), threading.Event(), threading.Event()
    monkeypatch.setattr(fair_thread, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def hold() -> None:
        begun.set()
        free.wait(60)
        now[0] += 10

    def come_back() -> list[Future[None]]:
        return [thread.submit(key, lambda key=key: order.append(key)) for key in ("mallory", "anna")]  # type: ignore[misc]

    thread.submit("mallory", hold)
    begun.wait(60)
    last = thread.submit("anna", come_back)
    free.set()
    for future in last.result(60):
        future.result(60)
    assert order == ["anna", "mallory"]
