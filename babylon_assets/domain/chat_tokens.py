"""The tokens of a conversation by a model's own chat template, for serving and for training alike.

The template's tokens, such as the one that ends a turn, are made by the template and never by a text. A text that
spells one of them is read as these characters: otherwise whoever writes `<|im_end|>` could end the turn of another and
begin one of the system's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any, Literal

#: A token that is markup, such as `<think>` or `[TOOL_CALLS]`; other added tokens are words or spaces.
_MARKUP = re.compile(r"[<\[].*[>\]]", re.DOTALL)
_OPEN, _CLOSE = "\ue000", "\ue001"

#: What not every chat template has a form for.
Feature = Literal["tools", "tool_calls", "tool_results", "reasoning"]


class InexpressibleError(Exception):
    """A chat template has no form for a conversation; the text says why."""


class ChatTokens:
    """Turns conversations and answers into token ids. May be used by several threads.

    Args:
        tokenizer: of transformers, with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast: Any = getattr(tokenizer, "backend_tokenizer", None)
        added = {str(token.content): token for token in tokenizer.added_tokens_decoder.values()}
        template = str(tokenizer.chat_template or "")
        special = {text for text, token in added.items() if token.special} | set(tokenizer.all_special_tokens)
        markup = {text for text in added if _MARKUP.fullmatch(text) and text in template}
        self._any = _pattern(added.keys() | special)
        self._special, self._own = _pattern(special), _pattern(special | markup)
        self._own_ids = set(tokenizer.convert_tokens_to_ids(sorted(special | markup)))
        self._expressed: dict[Feature, bool] = {}

    def prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """The ids of a conversation up to where the answer begins.

        Args:
            turns: `role` and `content` of each message, and what else the template reads, as of
                `chat_turns.chat_turns`. An assistant's own messages may hold tokens that are not special, such as those
                around its thoughts.
            tools: what is offered, in OpenAI's form.
        """
        hidden = _Hidden(_strings([*turns, *(tools or ())]))
        return self._ids(self._rendered(turns, tools, hidden), hidden)

    def turn(
        self,
        turns: Sequence[Mapping[str, Any]],
        answer: Mapping[str, Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """The ids of an answer as the template writes it after a conversation, without the end of its turn.

        Raises:
            InexpressibleError: the template writes the conversation otherwise when the answer follows it.
        """
        hidden = _Hidden(_strings([*turns, answer, *(tools or ())]))
        before = self._rendered(turns, tools, hidden)
        hidden.texts.clear()
        whole = self._rendered([*turns, answer], tools, hidden, is_open=False)
        if not whole.startswith(before):
            raise InexpressibleError("the chat template changes a conversation when an answer follows")
        end = str(self._tokenizer.eos_token)
        written = whole[len(before) :]
        return self._ids(written[: written.rfind(end)] if end in written else written.rstrip(), hidden)

    def _rendered(
        self,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        hidden: _Hidden,
        *,
        is_open: bool = True,
    ) -> str:
        """A conversation as the template writes it; some templates read the arguments of tool calls as texts."""
        from jinja2 import TemplateError

        shown = [self._hide(turn, hidden) for turn in turns]
        given: dict[str, Any] = {"tools": [self._hide(tool, hidden) for tool in tools]} if tools else {}
        for form in (shown, _with_text_arguments(shown)):
            try:
                return str(
                    self._tokenizer.apply_chat_template(form, add_generation_prompt=is_open, tokenize=False, **given)
                )
            except (TypeError, TemplateError) as error:
                reason = error
        if tools or any("tool_calls" in turn or turn.get("role") == "tool" for turn in turns):
            raise InexpressibleError(f"the chat template refuses it: {reason}")
        raise reason

    def expresses(self, feature: Feature) -> bool:
        """Whether the template writes tools, calls of them, their results, or the thought before an answer."""
        if feature not in self._expressed:
            turns, tools = _PROBES[feature]
            try:
                text = self._rendered(turns, tools, _Hidden([]), is_open=feature != "reasoning")
            except InexpressibleError:
                text = ""
            self._expressed[feature] = _PROBE in text
        return self._expressed[feature]

    def answer(self, text: str) -> list[int]:
        """The ids of an answer, without the end of its turn."""
        hidden = _Hidden([text])
        return self._ids(hidden.hide(text, self._special), hidden)

    def _hide(self, turn: Mapping[str, Any], hidden: _Hidden) -> dict[str, Any]:
        pattern = self._special if turn.get("role") == "assistant" else self._own
        return {name: hidden.hide_all(value, pattern) for name, value in turn.items()}

    def _ids(self, text: str, hidden: _Hidden) -> list[int]:
        if not hidden.texts:
            return self._encode(text)
        ids: list[int] = []
        plain_from = 0  # what is before and was not encoded yet holds nothing hidden
        for start, end in self._stretches(text):
            stretch = text[start:end]
            if _OPEN in stretch:
                ids += self._encode(text[plain_from:start]) if plain_from < start else []
                ids += self._encode_plainly(hidden.reveal(stretch))
                plain_from = end
        return ids + (self._encode(text[plain_from:]) if plain_from < len(text) else [])

    def _stretches(self, text: str) -> list[tuple[int, int]]:
        """Where the text is between two tokens that are in it as such."""
        marks = [match.span() for match in self._any.finditer(text)]
        starts, ends = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(text)]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def _encode(self, text: str) -> list[int]:
        if self._fast is not None:
            return list(self._fast.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_plainly(self, text: str) -> list[int]:
        """The ids of a text that may spell tokens and holds none."""
        ids = self._without_tokens(text)
        if self._own_ids.isdisjoint(ids):
            return ids
        parts = re.split(f"({self._own.pattern})", text)
        return [number for part in parts for number in self._by_part(part)]

    def _by_part(self, part: str) -> list[int]:
        ids = self._without_tokens(part) if part else []
        if self._own_ids.isdisjoint(ids):
            return ids
        if len(part) == 1:
            return []
        return [*self._by_part(part[:1]), *self._by_part(part[1:])]

    def _without_tokens(self, text: str) -> list[int]:
        if self._fast is not None:
            return list(self._bare.encode(text, add_special_tokens=False).ids)
        words = self._tokenizer.tokenize(text, split_special_tokens=True)
        return list(self._tokenizer.convert_tokens_to_ids(words))

    @cached_property
    def _bare(self) -> Any:
        """The same tokenizer without the tokens that were added to its words."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(json.loads(self._fast.to_str()) | {"added_tokens": []}))


chat_tokens = lru_cache(maxsize=4)(ChatTokens)


class _Hidden:
    """Pieces of texts that stand for themselves, each in the place of a mark that no text has."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._all = texts
        self.texts: list[str] = []

    @cached_property
    def _name(self) -> str:
        """No text holds the hash of all texts."""
        return sha256("\0".join(self._all).encode("utf-8", "backslashreplace")).hexdigest()

    def hide_all(self, value: Any, pattern: re.Pattern[str]) -> Any:
        """A value of JSON with all of its texts hidden, names of fields included."""
        if isinstance(value, str):
            return self.hide(value, pattern)
        if isinstance(value, Mapping):
            return {self.hide(name, pattern): self.hide_all(inner, pattern) for name, inner in value.items()}
        return [self.hide_all(inner, pattern) for inner in value] if isinstance(value, list) else value

    def hide(self, text: str, pattern: re.Pattern[str]) -> str:
        return pattern.sub(self._put_away, text)

    def _put_away(self, match: re.Match[str]) -> str:
        self.texts.append(match[0])
        return f"{_OPEN}{self._name}:{len(self.texts) - 1}{_CLOSE}"

    def reveal(self, text: str) -> str:
        mark = re.compile(f"{_OPEN}{self._name}:([0-9]+){_CLOSE}")
        return mark.sub(lambda match: self.texts[int(match[1])], text)


def _strings(value: Any) -> list[str]:
    """All texts of a value of JSON, names of fields included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for name, inner in value.items() for text in (name, *_strings(inner))]
    return [text for inner in value for text in _strings(inner)] if isinstance(value, list) else []


def _with_text_arguments(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same turns with the arguments of tool calls as JSON texts."""
    return [
        {**turn, "tool_calls": [_with_text(call) for call in turn["tool_calls"]]} if turn.get("tool_calls") else turn
        for turn in turns
    ]


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


_PROBE = "Xq7Zprobe"
_ASKED: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def _probed_call(name: str, result: str) -> list[dict[str, Any]]:
    call = {"id": "abcdef012", "type": "function", "function": {"name": name, "arguments": {"at": 1}}}
    return [
        *_ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": result, "tool_call_id": "abcdef012", "name": name},
    ]


def _probed_tools(name: str) -> list[dict[str, Any]]:
    parameters = {"type": "object", "properties": {"at": {"type": "integer", "description": "when"}}}
    return [{"type": "function", "function": {"name": name, "description": "looks", "parameters": parameters}}]


_PROBES: dict[Feature, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "tools": (_ASKED, _probed_tools(_PROBE)),
    "tool_calls": (_probed_call(_PROBE, "done"), _probed_tools("look")),
    "tool_results": (_probed_call("look", _PROBE), _probed_tools("look")),
    "reasoning": ([*_ASKED, {"role": "assistant", "content": "hi", "reasoning_content": _PROBE}], None),
}


def _pattern(texts: Collection[str]) -> re.Pattern[str]:
    """What finds any of these, the longest where several begin at one place; with none, nothing."""
    longest_first = sorted(filter(None, texts), key=lambda text: (-len(text), text))
    if not longest_first:
        return re.compile(r"(?!)")
    first = "".join(sorted({re.escape(text[0]) for text in longest_first}))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})")
