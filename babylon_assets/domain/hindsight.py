"""What a dataset must not hold: results in a prompt, and texts that nobody recorded.

An environment knows how things turn out, and writes it beside what its agents did. Records keep these apart by type;
here the samples are looked at as they were stored, so that a mistake on the way is seen before it is learned from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

from babylon_assets.domain.trajectories import Message


@cache
def _pattern(keys: tuple[str, ...]) -> re.Pattern[str]:
    """A name as a key of JSON, of JSON within JSON, or of a line of text; with no names, nothing."""
    return re.compile(rf"\b({'|'.join(keys)})\\*[\"']?\s*[:=]" if keys else r"(?!)")


#: Trajectory, step and position of the call.
Place = tuple[str, int, int]
#: The conversation and the answer.
Text = tuple[tuple[Message, ...], str]


class HasTexts(Protocol):
    """What is needed of a sample or of a recorded call."""

    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def response(self) -> str: ...


class HasPlace(HasTexts, Protocol):
    """What is needed of a sample of a dataset."""

    @property
    def sample_id(self) -> str: ...
    @property
    def trajectory_id(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def call(self) -> int: ...


def text_of(exchange: HasTexts) -> Text:
    """The conversation and the answer, fit to be compared."""
    return tuple(exchange.messages), exchange.response


def faults(
    samples: Iterable[HasPlace], raw: Mapping[Place, Text], recorded: frozenset[Text], result_keys: tuple[str, ...]
) -> list[str]:
    """What is wrong with the samples of a dataset, in words; nothing for a dataset that may be learned from.

    Args:
        raw: the calls that the environment itself kept, by place.
        recorded: the texts of the calls that were recorded when they were answered.
        result_keys: names of fields that hold what was not known when the policy answered.
    """
    fields = []
    for sample in samples:
        text = text_of(sample)
        if raw.get((sample.trajectory_id, sample.step, sample.call)) != text and text not in recorded:
            fields.append(f"{sample.sample_id}: no record has this prompt and answer")
        elif named := result_in(sample.messages, result_keys):
            fields.append(f"{sample.sample_id}: the prompt names {named}")
    return fields


def result_in(messages: Iterable[Message], result_keys: tuple[str, ...]) -> str | None:
    """The first name of a result that the prompt has as a key, or None."""
    matches = (_pattern(result_keys).search(message.content) for message in messages)
    return next((match[1] for match in matches if match), None)


def may_name_result(chat: bytes, result_keys: tuple[str, ...]) -> bool:
    """Whether the name of a result stands anywhere in a chat's JSON, as key or not: most have none and need no look."""
    return any(name.encode() in chat for name in result_keys)
