"""What a dataset must not hold: results in a prompt, and texts that nobody recorded.

An environment knows how things turn out, and writes it beside what its agents did. Records keep these apart by type;
here the samples are looked at as they were stored, so that a mistake on the way is seen before it is learned from.
A prompt names a result where it is JSON and has the result's name as a key: that is what an environment put in. Texts
are what people wrote, and are never looked into: whoever writes "finalPnL: 9000" would otherwise stop everybody's hour.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from babylon_assets.domain.json_nesting import decode_cut
from babylon_assets.domain.trajectories import Exchange, HasTexts, Message, ToolCall, decode_chat

#: Trajectory, step and position of the call.
Place = tuple[str, int, int]
#: The conversation, the answer, and what it asks of tools.
Text = tuple[tuple[Message, ...], str, tuple[ToolCall, ...]]
#: Why a sample whose prompt names a result is not trained on.
NAMES_RESULT = "prompt names a result"
#: A window of whose samples a larger share names a result is not trained on: the environment puts results in. Whoever
#: asks for one agent alone may write its prompts, so the agent with most of them is left out of the count.
MOST_SUSPICIOUS = 0.05


class HasPlace(HasTexts, Protocol):
    """What is needed of a sample of a dataset."""

    @property
    def sample_id(self) -> str: ...
    @property
    def trajectory_id(self) -> str: ...
    @property
    def agent_id(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def call(self) -> int: ...
    @property
    def trains_as(self) -> str: ...


class Faults(NamedTuple):
    """What is wrong with the samples of a dataset, in words.

    Attributes:
        suspicious: those whose prompt names a result.
        agents: whose these are, in the same order.
    """

    wrong: list[str]
    suspicious: list[str]
    agents: list[str]


def text_of(exchange: HasTexts) -> Text:
    """The conversation and the answer, fit to be compared."""
    return tuple(exchange.messages), exchange.response, exchange.tool_calls


def faults(
    samples: Iterable[HasPlace], raw: Mapping[Place, Text], recorded: frozenset[Text], result_keys: tuple[str, ...]
) -> Faults:
    """What is wrong with the samples of a dataset; nothing for a dataset that may be learned from.

    A sample whose prompt names a result is suspicious, and wrong where it is trained on.

    Args:
        raw: the calls that the environment itself kept, by place.
        recorded: the texts of the calls that were recorded when they were answered.
        result_keys: names of fields that hold what was not known when the policy answered.
    """
    wrong, suspicious, agents = [], [], []
    for sample in samples:
        text = text_of(sample)
        if raw.get((sample.trajectory_id, sample.step, sample.call)) != text and text not in recorded:
            wrong.append(f"{sample.sample_id}: no record has this prompt and answer")
        elif path := result_in(sample.messages, result_keys):
            line = f"{sample.sample_id}: the prompt names {path}"
            suspicious.append(line)
            agents.append(sample.agent_id)
            if sample.trains_as != "skip":
                wrong.append(line)
    return Faults(wrong, suspicious, agents)


def too_suspicious(agents: Iterable[str], samples: int) -> bool:
    """Whether so many samples name a result that the window may not be trained on.

    Args:
        agents: the agent of each sample that does.
    """
    counts = Counter(agents)
    return counts.total() - max(counts.values(), default=0) > MOST_SUSPICIOUS * samples


def suspicious_places(
    trajectory: str, places: Iterable[tuple[int, int]], chat: bytes, result_keys: tuple[str, ...]
) -> set[Place]:
    """Which calls of a trajectory have a prompt that names a result.

    Args:
        places: step and call of each text, in the order of the chat.
        chat: as of `trajectories.StoredSamples`.
    """
    if not may_name_result(chat, result_keys):
        return set()
    texts: list[Exchange] = decode_chat(chat)
    pairs = zip(places, texts, strict=True)
    return {(trajectory, *place) for place, text in pairs if result_in(text.messages, result_keys)}


def result_in(messages: Iterable[Message], result_keys: tuple[str, ...]) -> str | None:
    """The path of the first field of a prompt that is named as a result is, such as `state.finalPnL`, or None.

    Only messages that are JSON as a whole have fields; what stands in a field's text is not looked at.

    Args:
        result_keys: the name of a field, or with dots the end of its path.
    """
    names = [tuple(key.split(".")) for key in result_keys]
    for message in messages:
        for path in _paths(message.content) if names else ():
            if any(path[-len(name) :] == name for name in names):
                return ".".join(path)
    return None


def _paths(content: str) -> Iterator[tuple[str, ...]]:
    """The paths of all fields of a text that is JSON; places in lists are no part of them."""
    if content.lstrip()[:1] not in ("{", "["):
        return
    try:
        value = decode_cut(msgspec.json.decode, content.encode())
    except (msgspec.DecodeError, UnicodeError):
        return
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), value)])
    while waiting:
        path, value = waiting.popleft()
        if isinstance(value, dict):
            yield from ((*path, name) for name in value)
            inside = [((*path, name), inner) for name, inner in value.items()]
        else:
            inside = [(path, inner) for inner in value] if isinstance(value, list) else []
        waiting += [entry for entry in inside if isinstance(entry[1], dict | list)]


def may_name_result(chat: bytes, result_keys: tuple[str, ...]) -> bool:
    """Whether the name of a result stands anywhere in a chat's JSON, as key or not: most have none and need no look."""
    return any(name.rpartition(".")[2].encode() in chat for name in result_keys)
