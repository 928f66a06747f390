"""Trajectories as the rest of the product sees them: the types that every other module uses.

A record keeps apart what the policy saw and said (`RawSample`) and what the game reports about each step
(`StepFacts`). Results of an action have no place in either: what a trade turned out to be worth lives in
`environments.babylon.outcomes`. How a row of the game becomes a record is in `environments.babylon.decoding`; nothing
here reads or writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal, Protocol, overload

import msgspec

Shape = Literal["live", "full", "logger"]


class ToolCall(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One call of a tool, as a policy asked for it; `arguments` is JSON as the policy wrote it, `id` may be empty."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One message of a conversation. What it does not have is no part of its JSON.

    Attributes:
        role: system, user, assistant or tool.
        content: its text; empty where the content was null.
        tool_calls: what an assistant asked its tools to do.
        tool_call_id, name: which call a tool answers, and the tool's name.
        reasoning: the thought that came beside the content.
        parts: JSON of the whole content where some part of it is no text; `content` has the texts among them.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    parts: str | None = None


class RawSample(msgspec.Struct, frozen=True, gc=False):
    """One call of purpose `action`, exactly as the policy saw and answered it.

    Attributes:
        step, call: number of the step in the trajectory, position of the call within the step.
        call_id: the id under which the answer was recorded when it was sampled, if the game kept it.
        model: the model's name as the game wrote it; `<model>@<step>` for one of our policies.
        timestamp_ms: epoch milliseconds of the call, if known.
        messages: the conversation up to where the answer begins.
        refused: the environment could not carry it out and asked again: what came of the step is not its doing.
        tools, tool_calls, reasoning: as of `Exchange`.
    """

    step: int
    call: int
    call_id: str | None
    model: str
    temperature: float | None
    timestamp_ms: int | None
    messages: list[Message]
    response: str
    refused: bool = False
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None

    @property
    def characters(self) -> int:
        """Length of the answer."""
        return len(self.response)


class HasTexts(Protocol):
    """What is needed of a sample or of a recorded call."""

    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def response(self) -> str: ...
    @property
    def tool_calls(self) -> tuple[ToolCall, ...]: ...


class Exchange(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The texts of one call: the conversation up to where the answer begins, and the answer.

    Attributes:
        tools: canonical JSON of the tools that were offered, a list in OpenAI's form.
        tool_calls: what the answer asked of them.
        reasoning: the answer's thought where `response` does not hold it.
    """

    messages: list[Message]
    response: str
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None


class HasExchange(Protocol):
    """What has the texts of a call among other things."""

    @property
    def messages(self) -> list[Message]: ...
    @property
    def response(self) -> str: ...
    @property
    def tools(self) -> str | None: ...
    @property
    def tool_calls(self) -> tuple[ToolCall, ...]: ...
    @property
    def reasoning(self) -> str | None: ...


def exchange_of(call: HasExchange) -> Exchange:
    """The texts of a call."""
    return Exchange(call.messages, call.response, call.tools, call.tool_calls, call.reasoning)


class CallHead(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A `RawSample` without its texts; `characters` is the length of its answer."""

    step: int
    call: int
    call_id: str | None
    model: str
    temperature: float | None
    timestamp_ms: int | None
    characters: int
    refused: bool = False


class StoredSamples(Sequence[RawSample]):
    """The samples of a record whose texts stay as they are kept, one `chat`, until someone looks at them.

    A chat is the canonical JSON of a list of `Exchange`, one per head and in the order of the heads. It is given as
    bytes, or as a function that fetches them; each look decodes it anew, so that only what is looked at takes room.
    """

    __slots__ = ("_chat", "heads")

    def __init__(self, heads: list[CallHead], chat: bytes | Callable[[], bytes]) -> None:
        self.heads = heads
        self._chat = chat

    def chat(self) -> bytes:
        """The texts as canonical JSON."""
        return self._chat if isinstance(self._chat, bytes) else self._chat()

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[RawSample]:
        exchanges = decode_chat(self.chat()) if self.heads else ()
        return (_raw_sample(head, exchange) for head, exchange in zip(self.heads, exchanges, strict=True))

    @overload
    def __getitem__(self, index: int) -> RawSample: ...
    @overload
    def __getitem__(self, index: slice) -> list[RawSample]: ...
    def __getitem__(self, index: int | slice) -> RawSample | list[RawSample]:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"KeptSamples({list(self)!r})"


#: Of `Exchange`s to a chat, and back.
encode_chat = msgspec.json.Encoder(order="sorted").encode
decode_chat = msgspec.json.Decoder(list[Exchange]).decode


def store_samples(samples: Sequence[RawSample]) -> StoredSamples:
    """Samples, ordered by step and call, with their texts as a chat."""
    if isinstance(samples, StoredSamples):
        return samples
    samples = sorted(samples, key=attrgetter("step", "call"))
    heads = [
        CallHead(
            step=s.step,
            call=s.call,
            call_id=s.call_id,
            model=s.model,
            temperature=s.temperature,
            timestamp_ms=s.timestamp_ms,
            characters=len(s.response),
            refused=s.refused,
        )
        for s in samples
    ]
    return StoredSamples(heads, encode_chat([exchange_of(sample) for sample in samples]))


def _raw_sample(head: CallHead, exchange: Exchange) -> RawSample:
    return RawSample(
        step=head.step,
        call=head.call,
        call_id=head.call_id,
        model=head.model,
        temperature=head.temperature,
        timestamp_ms=head.timestamp_ms,
        messages=exchange.messages,
        response=exchange.response,
        refused=head.refused,
        tools=exchange.tools,
        tool_calls=exchange.tool_calls,
        reasoning=exchange.reasoning,
    )


class StepFacts(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the environment reports about one step, before anything is known of how it turned out.

    Attributes:
        timestamp_ms, moment_ms: epoch milliseconds of the step, and of the state that it saw.
        action_type: the environment's name of the action; an open set.
        success, error: what the environment answered; None where it did not say.
        invalid: the action could not be carried out. It is the agent's doing: scored low, never quarantined.
        detail: what else the environment says of the step, by names that it declares as columns (`Environment.detail`).
    """

    step: int
    timestamp_ms: int
    moment_ms: int
    action_type: str
    success: bool | None
    error: str | None
    invalid: bool
    detail: dict[str, Any] = {}


#: The fields of a step as they were stored before `detail` was a part of its own.
_OLDER_FIELDS = (
    *("step", "timestamp_ms", "moment_ms", "balance", "pnl", "action_type", "market_type", "market_id", "ticker"),
    *("side", "amount", "success", "error", "invalid"),
)


def restore_step(values: Sequence[Any]) -> StepFacts:
    """A step from its stored values, also from those of the older form with a field for each detail.

    Raises:
        ValidationError: they are not the values of a step.
    """
    if len(values) != len(_OLDER_FIELDS):
        return msgspec.convert(values, StepFacts)
    return restore_named_step(dict(zip(_OLDER_FIELDS, values, strict=True)))


def restore_named_step(fields: Mapping[str, Any]) -> StepFacts:
    """The same of values by name, as exported files have them.

    Raises:
        ValidationError: they are not the values of a step.
    """
    own = {name: fields.get(name) for name in StepFacts.__struct_fields__}
    rest = {name: value for name, value in fields.items() if name not in own and value is not None}
    return msgspec.convert({**own, "detail": own["detail"] or rest}, _NamedStep).facts()


class _NamedStep(msgspec.Struct, frozen=True, gc=False):
    """A step by the names of its fields."""

    step: int
    timestamp_ms: int
    moment_ms: int
    action_type: str
    success: bool | None
    error: str | None
    invalid: bool
    detail: dict[str, Any]

    def facts(self) -> StepFacts:
        return StepFacts(*msgspec.structs.astuple(self))


class TrajectoryRecord(msgspec.Struct, frozen=True, gc=False):
    """One episode of one agent in one window; times are aware UTC, the hash is that of the source row.

    Attributes:
        references: what else of the environment its steps name, sorted: a change of these is a change of the window.
        attributes: what the record says of its agent and its circumstances, such as its archetype or its team.
        dropped: how much of what could not be read in it, and was left out.
    """

    window: str
    trajectory_id: str
    agent_id: str
    scenario_id: str | None
    shape: Shape
    start_time: datetime
    end_time: datetime
    final_status: str
    final_balance: float | None
    final_pnl: float | None
    content_hash: str
    samples: Sequence[RawSample]
    facts: list[StepFacts]
    references: list[str] = []
    attributes: dict[str, str] = {}
    dropped: dict[str, int] = {}


class Quarantined(msgspec.Struct, frozen=True, gc=False):
    """A row that cannot be read: why, where in it, and the hash of the row as it was."""

    window: str
    trajectory_id: str
    reason: str
    place: str
    row_hash: str
