"""Which tokens may be sampled at each place, so that an answer is JSON of a schema, or calls a tool. By llguidance.

The others have no probability before a token is sampled; log-probabilities are those of what is left.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from babylon_assets.serving.answers import Question
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.tool_call_texts import is_text, json_types

if TYPE_CHECKING:
    import torch

#: How a model calls a tool: as Qwen and Hermes with JSON within `<tool_call>`, as Qwen3-Coder with XML there, or as
#: Llama with JSON alone.
CallForm = Literal["hermes", "xml", "llama"]
#: Between the parts of JSON stands what Python's json writes there: freely, an answer could go on with spaces.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Constraint:
    """The constraint of one answer, which follows what is sampled."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def mask(self, logits: torch.Tensor) -> None:
        """Give minus infinity to the logits [vocabulary] of what may not come next."""
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool)
        if allowed.any():
            refused = torch.from_numpy(np.pad(~allowed, (0, len(logits) - len(allowed)), constant_values=True))
            logits.masked_fill_(refused.to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Go on behind a token."""
        self._matcher.consume_token(token)


class Constrainer:
    """Makes the constraints of a base model's answers. May be used by several threads.

    Args:
        tokenizer: of transformers.
        form: how the model calls tools.
    """

    def __init__(self, tokenizer: Any, form: CallForm) -> None:
        self._tokenizer, self._form = tokenizer, form
        self._making = threading.Lock()
        self._vocabulary: Any = None

    def constraints(self, question: Question) -> Sequence[Constraint | None]:
        """A constraint for each answer; None where any answer will do.

        Raises:
            ApiError: 400 for a schema that cannot be followed, 501 where llguidance is not installed.
        """
        if not question.is_constrained:
            return [None] * len(question.seeds)
        llguidance = _llguidance()
        matcher = llguidance.LLMatcher(self._read_vocabulary(), grammar_of(question, self._form))
        if matcher.is_error():
            reason = str(matcher.get_error()).splitlines()[0][:300]
            param = "response_format" if question.response_format is not None else "tools"
            raise ApiError(400, f"the schema cannot be followed: {reason}", param=param, code="invalid_value")
        return [Constraint(matcher.deep_copy()) for _ in question.seeds]

    def _read_vocabulary(self) -> Any:
        from llguidance.hf import from_tokenizer

        with self._making:
            if self._vocabulary is None:
                self._vocabulary = from_tokenizer(self._tokenizer)
        return self._vocabulary


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        reason = "JSON and forced tool calls need the package llguidance; install babylon_assets[embedded]"
        raise ApiError(501, reason, param="response_format", code="unsupported_parameter") from None
    return llguidance


def grammar_of(question: Question, form: CallForm) -> str:
    """The grammar of an answer in llguidance's Lark: JSON, a call of a tool, or either where the question leaves it."""
    rules, starts = [], []
    tools, response_format = question.tools, question.response_format
    if response_format is not None:
        schema = response_format.get("json_schema", {}).get("schema") or {"type": "object"}
        rules.append(f"answer: %json {_inline(schema)}")
        starts.append("answer")
    if tools is not None and (tools.choice != "auto" or response_format is not None):
        called = tools.parameters if tools.choice in ("auto", "required") else [tools.choice]
        write_rule = _xml_rule if form == "xml" else partial(_json_rule, form=form)
        for number, tool in enumerate(tool for tool in tools.listed if tool["function"]["name"] in called):
            rules.append(write_rule(number, tool["function"]))
            starts.append(f"call_{number}")
    if tools is not None and tools.choice != "auto":
        starts = [start for start in starts if start != "answer"]
        rules = [rule for rule in rules if not rule.startswith("answer:")]
    return "\n".join([f"start: {' | '.join(starts)}", *rules])


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
    parts, rules = [json.dumps(before)], []
    for place, (name, inner) in enumerate(properties.items()):
        rule, mark = f"value_{number}_{place}", json.dumps(f"<parameter={name}>\n")
        parts.append(f"({mark} {rule})" if name in needed else f"({mark} {rule})?")
        rules.append(_xml_value(rule, inner, schema))
    return "\n".join([f"call_{number}: {' '.join([*parts, json.dumps(after)])}", *rules])


def _xml_value(rule: str, schema: Any, root: Mapping[str, Any]) -> str:
    end = json.dumps("\n</parameter>\n")
    listed = schema.get("enum") if isinstance(schema, Mapping) else None
    if isinstance(listed, list) and listed:
        texts = [value if isinstance(value, str) else json.dumps(value) for value in listed]
        return f"{rule}: ({' | '.join(map(json.dumps, texts))}) {end}"
    if is_text(json_types(schema, root)):
        return f"{rule}[suffix={end}]: /(.|\\n)*/"
    shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
    return f"{rule}: {rule}_json {end}\n{rule}_json: %json {_inline({**shared, **schema})}"


def _inline(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": _COMPACT})
