"""What a dataset must not hold: results in a prompt, and texts that nobody recorded.

The game knows how things turn out: the result of an action stands among the parameters of the action, what is true of
its markets beside the row. Records keep these apart by type; here the samples are looked at as they were stored, so
that a mistake on the way is seen before it is learned from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from babylon_assets.domain.trajectories import Message

#: Under these names the game writes what was not known when the policy answered.
RESULT_KEYS = (
    *("pnlChange", "finalPnL", "finalBalance", "gameKnowledge", "trueProbabilities", "actualOutcomes"),
    *("futureOutcomes", "rewardComponents", "aiJudgeReward"),
)
_NAMES = tuple(key.encode() for key in RESULT_KEYS)
#: As a key of JSON, of JSON within JSON, or of a line of text.
_RESULT = re.compile(rf"\b({'|'.join(RESULT_KEYS)})\\*[\"']?\s*[:=]")

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


def text_of(said: HasTexts) -> Text:
    """The conversation and the answer, fit to be compared."""
    return tuple(said.messages), said.response


def faults(samples: Iterable[HasPlace], raw: Mapping[Place, Text], recorded: frozenset[Text]) -> list[str]:
    """What is wrong with the samples of a dataset, in words; nothing for a dataset that may be learned from.

    Args:
        raw: the calls that the game itself kept, by place.
        recorded: the texts of the calls that were recorded when they were answered.
    """
    found = []
    for sample in samples:
        text = text_of(sample)
        if raw.get((sample.trajectory_id, sample.step, sample.call)) != text and text not in recorded:
            found.append(f"{sample.sample_id}: no record has this prompt and answer")
        elif named := result_in(sample.messages):
            found.append(f"{sample.sample_id}: the prompt names {named}")
    return found


def result_in(messages: Iterable[Message]) -> str | None:
    """The first name of a result that the prompt has as a key, or None."""
    matches = (_RESULT.search(message.content) for message in messages)
    return next((match[1] for match in matches if match), None)


def may_name_result(chat: bytes) -> bool:
    """Whether the name of a result stands anywhere in a chat's JSON, as key or not: most have none and need no look."""
    return any(name in chat for name in _NAMES)
