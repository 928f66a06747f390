"""Which tokens may be sampled at each place, so that an answer is JSON of a schema, or calls a tool. By llguidance.

The others have no probability before a token is sampled; log-probabilities are those of what is left. Grammars are made
on one thread and masks on another, both for keys in turn. llguidance works without Python's lock, and counts its work:
what takes more than `_LIMITS` ends with an error, after the same work each time. What it does not count is found out by
a trial in another process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from babylon_assets.serving.answers import Question
from babylon_assets.serving.engine.fair_thread import FairThread
from babylon_assets.serving.engine.grammar_trial import NICE, STACK
from babylon_assets.serving.engine.grammar_trials import GrammarTrials
from babylon_assets.serving.engine.schema_bounds import UnboundedSchemaError, require_bounded
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.tool_call_texts import is_text, json_types

if TYPE_CHECKING:
    import torch

#: How a model calls a tool: as Qwen and Hermes with JSON within `<tool_call>`, as Qwen3-Coder with XML there, or as
#: Llama with JSON alone.
CallForm = Literal["hermes", "xml", "llama"]
#: Between the parts of JSON stands what Python's json writes there: freely, an answer could go on with spaces. Of
#: `oneOf`, llguidance has none but that of schemas which it can tell to be disjoint, and of references it never can.
_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "coerce_one_of": True}
#: Seconds after which a request is refused whose grammar is not there yet.
LONGEST_WAIT = 30.0
#: Characters of a grammar: where calls are XML, definitions stand in it once for each argument.
LONGEST_GRAMMAR = 1_000_000
_TOO_LONG = f"its grammar has more than {LONGEST_GRAMMAR} characters, as each argument brings the definitions with it"
#: What llguidance may do, in steps of its work: those of the lexer for one mask take about 10 ms, and the schemas of
#: clients need a fifth of them.
_LIMITS = {
    **{"max_grammar_size": 50_000, "step_lexer_fuel": 100_000, "step_max_items": 50_000},
    "verbose_errors": False,
}


@dataclass(frozen=True, slots=True)
class Mask:
    """Which tokens may come next.

    Attributes:
        refused: [vocabulary] those that may not; None where none can be told.
        error: why the schema cannot be followed any more; empty while it can.
    """

    refused: torch.Tensor | None
    error: str = ""

    def apply(self, logits: torch.Tensor) -> None:
        """Give minus infinity to the logits [vocabulary or more] of what may not come next."""
        if self.refused is not None:
            known = len(self.refused)
            logits[:known].masked_fill_(self.refused[: len(logits)].to(logits.device), float("-inf"))
            logits[known:] = float("-inf")


class Constraint:
    """The constraint of one answer, which follows what is sampled.

    Args:
        matcher: llguidance's, at the beginning of an answer; nobody else may use it.
        first: what an answer may begin with.
        submit: has work done on another thread.

    Attributes:
        next: what may be sampled next; not done while it is being made.
    """

    def __init__(self, matcher: Any, first: Mask, submit: Callable[[Callable[[], Mask]], Future[Mask]]) -> None:
        self._matcher, self._submit = matcher, submit
        self.next: Future[Mask] = Future()
        self.next.set_result(first)

    @property
    def error(self) -> str:
        """Why no more can be sampled, once that is known; else empty."""
        failure = self.next.exception()
        return self.next.result().error if failure is None else str(failure) or type(failure).__name__

    def accept(self, token: int) -> None:
        """Go on behind a token: its mask is being made from now on."""
        self.next = self._submit(partial(self._advance, token))

    def _advance(self, token: int) -> Mask:
        self._matcher.consume_token(token)
        return make_mask(self._matcher)


def make_mask(matcher: Any) -> Mask:
    """What may come where a matcher of llguidance is."""
    import torch

    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    if matcher.is_error():
        return Mask(None, str(matcher.get_error()).partition("\n")[0][:300])
    allowed = np.unpackbits(bits, bitorder="little").astype(bool)
    return Mask(torch.from_numpy(~allowed) if allowed.any() else None)


class Constrainer:
    """Makes the constraints of a base model's answers. May be used by several threads.

    Args:
        tokenizer: of transformers.
        form: gives how the model calls tools.
    """

    def __init__(self, tokenizer: Any, form: Callable[[], CallForm]) -> None:
        self._tokenizer, self._form = tokenizer, form
        self._vocabulary: Any = None
        self._trials = GrammarTrials()
        self._grammars, self._masks = FairThread("grammars", STACK, NICE), FairThread("masks")

    async def constraints(self, question: Question) -> list[Constraint]:
        """A constraint for each answer to a question that has one.

        Raises:
            ApiError: 400 for a schema that is not followed, 501 where llguidance is not installed, 503 where it took
                too long.
        """
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                return await asyncio.wrap_future(self._grammars.submit(question.key, partial(self._follow, question)))
        except TimeoutError:
            reason = f"the schema was not made ready within {LONGEST_WAIT:g} seconds; ask again, or send a smaller one"
            raise ApiError(503, reason, param=_param(question), code="schema_timeout", retry_after=1) from None

    def _follow(self, question: Question) -> list[Constraint]:
        """Runs on the thread of grammars only."""
        llguidance = _llguidance()
        if self._vocabulary is None:
            from llguidance.hf import from_tokenizer

            self._vocabulary = from_tokenizer(self._tokenizer)
        try:
            require_bounded(_schemas(question))
            grammar = grammar_of(question, self._form())
            self._trials.try_out(grammar, _LIMITS)
        except UnboundedSchemaError as error:
            raise _refusal(question, str(error)) from None
        limits = llguidance.LLParserLimits(**_LIMITS)
        matcher = llguidance.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        first = make_mask(matcher)
        if first.error:
            raise _refusal(question, first.error)
        submit = partial(self._masks.submit, question.key)
        return [Constraint(matcher.deep_copy(), first, submit) for _ in question.seeds]


def _refusal(question: Question, reason: str) -> ApiError:
    return ApiError(400, f"the schema cannot be followed: {reason}", param=_param(question), code="invalid_value")


def _param(question: Question) -> str:
    return "response_format" if question.response_format is not None else "tools"


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        reason = "JSON and forced tool calls need the package llguidance; install babylon_assets[embedded]"
        raise ApiError(501, reason, param="response_format", code="unsupported_parameter") from None
    return llguidance


def _schema(response_format: Mapping[str, Any]) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = response_format.get("json_schema", {}).get("schema") or {"type": "object"}
    return schema


def _callable(question: Question) -> list[Mapping[str, Any]]:
    """The functions that the grammar has a rule for."""
    tools = question.tools
    if tools is None or (tools.choice == "auto" and question.response_format is None):
        return []
    functions = [tool["function"] for tool in tools.listed]
    is_any = tools.choice in ("auto", "required")
    return [function for function in functions if is_any or function["name"] == tools.choice]


def _schemas(question: Question) -> Iterator[Mapping[str, Any]]:
    """The schemas that the grammar is made of."""
    if question.response_format is not None:
        yield _schema(question.response_format)
    for function in _callable(question):
        yield function.get("parameters") or {}


def grammar_of(question: Question, form: CallForm) -> str:
    """The grammar of an answer in llguidance's Lark: JSON, a call of a tool, or either where the question leaves it.

    Raises:
        UnboundedSchemaError: it is longer than is followed.
    """
    rules: dict[str, str] = {}
    if question.response_format is not None and (question.tools is None or question.tools.choice == "auto"):
        rules["answer"] = f"answer: %json {_inline(_schema(question.response_format))}"
    write_rule = _xml_rule if form == "xml" else partial(_json_rule, form=form)
    for number, function in enumerate(_callable(question)):
        rules[f"call_{number}"] = write_rule(number, function)
        if sum(map(len, rules.values())) > LONGEST_GRAMMAR:
            raise UnboundedSchemaError(_TOO_LONG)
    return "\n".join([f"start: {' | '.join(rules)}", *rules.values()])


def _json_rule(number: int, function: Mapping[str, Any], form: CallForm) -> str:
    name = json.dumps(function["name"])
    key = "arguments" if form == "hermes" else "parameters"
    before, after = f'{{"name": {name}, "{key}": ', "}"
    if form == "hermes":
        before, after = f"<tool_call>\n{before}", f"{after}\n</tool_call>"
    schema = _inline(function.get("parameters") or {"type": "object"})
    call = f"call_{number}: {json.dumps(before)} arguments_{number} {json.dumps(after)}"
    return f"{call}\narguments_{number}: %json {schema}"


def _xml_rule(number: int, function: Mapping[str, Any]) -> str:
    """A call in XML: each argument as its schema wants it, in the schema's order. A text ends at its mark."""
    schema = function.get("parameters") or {}
    given, required = schema.get("properties"), schema.get("required")
    properties, needed = given if isinstance(given, Mapping) else {}, required if isinstance(required, list) else ()
    before, after = f"<tool_call>\n<function={function['name']}>\n", "</function>\n</tool_call>"
    parts, rules, length = [json.dumps(before)], list[str](), 0
    for place, (name, inner) in enumerate(properties.items()):
        rule, mark = f"value_{number}_{place}", json.dumps(f"<parameter={name}>\n")
        parts.append(f"({mark} {rule})" if name in needed else f"({mark} {rule})?")
        rules.append(_xml_value(rule, inner, schema))
        length += len(rules[-1])
        if length > LONGEST_GRAMMAR:
            raise UnboundedSchemaError(_TOO_LONG)
    return "\n".join([f"call_{number}: {' '.join([*parts, json.dumps(after)])}", *rules])


def _xml_value(rule: str, schema: Any, root: Mapping[str, Any]) -> str:
    end = json.dumps("\n</parameter>\n")
    listed = schema.get("enum") if isinstance(schema, Mapping) else None
    if isinstance(listed, list) and listed:
        texts = [value if isinstance(value, str) else json.dumps(value) for value in listed]
        return f"{rule}: ({' | '.join(map(json.dumps, texts))}) {end}"
    if is_text(json_types(schema, root)):
        return f"{rule}[suffix={end}]: /(.|\\n)*/"
    refers = '"$ref"' in json.dumps(schema)
    shared = {name: root[name] for name in ("$defs", "definitions") if name in root and refers}
    return f"{rule}: {rule}_json {end}\n{rule}_json: %json {_inline({**shared, **schema})}"


def _inline(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": _OPTIONS})
