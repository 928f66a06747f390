"""The words between the gateway and whoever answers behind it: a question to one policy, its answers, their pieces.

Two kinds answer: the embedded engine (`scheduler`) and a server (`upstream`). What one of them cannot give is None.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec

from babylon_assets.domain.trajectories import Message, ToolCall
from babylon_assets.serving.http.protocol import Token
from babylon_assets.serving.lasting_thread import LastingThread
from babylon_assets.serving.offered_tools import OfferedTools


@dataclass(frozen=True, slots=True)
class Target:
    """A policy that can be asked.

    Attributes:
        name: `<model>@<step>`.
        step: its step in the chain.
        path: folder of its adapter, or where a hosted service has it; empty for the base model as it is.
        weights_sha256: of the adapter, as the ledger recorded it; empty where it is not known.
    """

    name: str
    step: int
    path: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked of a policy.

    Attributes:
        seeds: one for each answer that is wanted.
        max_tokens: longest answer.
        top_logprobs: how many likeliest tokens are wanted at each place; None where no log-probabilities are.
        with_end: whether those are wanted of the end of turn as well, as beside token ids.
        key: name of the key that asks; answers are given to keys in turn.
        tools: what the answer may call, if anything.
        response_format: in OpenAI's form, where the answer has to be JSON.
        thoughts: `parsed` where thoughts stand beside the content, `raw` where in it, `hidden` where nowhere.
    """

    policy: Target
    messages: Sequence[Message]
    seeds: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    top_logprobs: int | None
    with_end: bool = False
    key: str = ""
    tools: OfferedTools | None = None
    response_format: Mapping[str, Any] | None = None
    thoughts: str = "parsed"

    @cached_property
    def characters(self) -> int:
        """How much text it has, which says how long work on it takes: thoughts, tools and calls of them as well."""
        thoughts = sum(len(message.reasoning or "") for message in self.messages)
        return self._characters_of_contents + thoughts + self._characters_of_tools

    @property
    def fewest_characters(self) -> int:
        """What a prompt of it has at least: a template may leave thoughts out, and JSON may write one as six."""
        return self._characters_of_contents + self._characters_of_tools // 6

    @property
    def _characters_of_contents(self) -> int:
        return sum(len(message.content) for message in self.messages)

    @cached_property
    def _characters_of_tools(self) -> int:
        offered = 0 if self.tools is None else len(msgspec.json.encode(self.tools.listed))
        calls = [call for message in self.messages for call in message.tool_calls]
        return offered + sum(len(call.name) + len(call.arguments) for call in calls)

    @property
    def is_constrained(self) -> bool:
        """Whether only some tokens may be sampled at each place, so that the answer has the form that was asked for."""
        return self.response_format is not None or (self.tools is not None and self.tools.choice != "auto")


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer.

    Attributes:
        text: as it was sampled, which is what is recorded.
        prompt_token_ids, token_ids, logprobs: as in `inference_calls`; None where they are not known.
        tokens: for the client, if log-probabilities were asked for; a stream's pieces have had them.
        content: what of the text is for the client; None: all of it.
        reasoning: the thought before it.
        tool_calls: what it asks the tools to do.
    """

    text: str
    finish_reason: str
    prompt_token_ids: Sequence[int] | None
    token_ids: Sequence[int] | None
    logprobs: Sequence[float] | None
    tokens: list[Token] | None
    prompt_tokens: int
    completion_tokens: int
    content: str | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def shown(self) -> str:
        """The text that is for the client."""
        return self.text if self.content is None else self.content


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of one of the answers; the last one brings the whole answer. A tool call is always in one piece."""

    index: int
    text: str
    tokens: list[Token] | None
    whole: Answer | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Source(Protocol):
    """Whoever answers.

    Attributes:
        opens_thought: whether an answer begins within a thought, as where the chat template opens one.
    """

    opens_thought: bool

    @property
    def thread(self) -> LastingThread | None:
        """The thread without which it answers nobody; None where it has none."""
        ...

    def prepare(self, policy: Target) -> None:
        """Make ready to answer with a policy, as long as that takes. Raises what would keep it from answering."""
        ...

    def serves(self, policy: Target) -> bool:
        """Whether the policy can be asked at all: its weights are still kept."""
        ...

    async def answers(self, question: Question) -> list[Answer]:
        """One answer per seed. When the caller is cancelled, nothing goes on."""
        ...

    def pieces(self, question: Question) -> AsyncGenerator[Piece]:
        """The same in pieces, as they come."""
        ...

    def load(self) -> tuple[int, int]:
        """Answers under way, and answers that wait for a place."""
        ...

    def close(self) -> None:
        """Answer nobody any more."""
        ...
