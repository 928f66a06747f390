"""When two texts are one answer: to the letter, or but for what a source changes in the form of what it was given.

An environment's client takes fences and thoughts off an answer, repairs its JSON, names a role otherwise and changes
white space. What remains the same are the words, the numbers and their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import NamedTuple

import msgspec

from babylon_assets.domain.content_ids import canonical_json
from babylon_assets.domain.json_nesting import decode_shallow
from babylon_assets.domain.trajectories import HasTexts

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
#: What is no word and no number.
_FORM = re.compile(r"[^\w.+-]+")
_ROLES = {"developer": "system", "function": "tool"}


Text = tuple[Hashable, Hashable]


class Form(NamedTuple):
    """How texts are compared: by their answers, and by the conversations before them."""

    answer: Callable[[HasTexts], Hashable]
    conversation: Callable[[HasTexts], Hashable]

    def text(self, call: HasTexts) -> Text:
        """All of a call's texts, fit to be compared."""
        return self.conversation(call), self.answer(call)


def _to_the_letter(call: HasTexts) -> Hashable:
    return call.response, call.tool_calls


def _letters_before(call: HasTexts) -> Hashable:
    return tuple(call.messages)


def _words(call: HasTexts) -> Hashable:
    """The words of an answer; of one that asks its tools for something, what it asks for."""
    if call.tool_calls:
        return tuple((called.name, _arguments(called.arguments)) for called in call.tool_calls)
    return words_of(call.response)


def words_of(answer: str) -> str:
    """The words and numbers of an answer without its thoughts and fences; all of it where nothing else is there."""
    rest = _FENCE.sub("", _THOUGHT.sub("", answer))
    return _FORM.sub(" ", rest).strip() or answer.strip()


def _words_before(call: HasTexts) -> Hashable:
    return tuple(
        (_ROLES.get(message.role, message.role), " ".join(message.content.split()), len(message.tool_calls))
        for message in call.messages
    )


def _arguments(text: str) -> str:
    try:
        return canonical_json(decode_shallow(text)).decode()
    except (msgspec.DecodeError, UnicodeError):
        return " ".join(text.split())


#: From the strictest to the most lenient.
FORMS = (Form(_to_the_letter, _letters_before), Form(_words, _words_before))
