"""The answers that a file of trajectories holds, read one by one: what cannot be read is refused in the smallest part.

A file is ART's JSONL of trajectory groups, or rows of a table, as `exports` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from babylon_assets.domain import trajectories
from babylon_assets.domain.chat_turns import UnreadableMessageError, read_tools
from babylon_assets.domain.content_ids import bytes_id, canonical_json, content_id
from babylon_assets.domain.cut_characters import replace_halves
from babylon_assets.domain.datasets import NEVER_KNOWN
from babylon_assets.domain.display_text import as_number, is_number
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.json_nesting import CUT_VALUES, NESTED_TOO_DEEPLY, cut_nesting
from babylon_assets.domain.trajectories import Message, Quarantined, StepFacts, ToolCall
from babylon_assets.domain.windows import HOURLY, WindowGrid
from babylon_assets.environments.files import bounds
from babylon_assets.environments.files.conversations import (
    UnreadableEntryError,
    read_message_with_text,
    read_messages,
    read_turns,
)

_LARGEST = 2**31 - 1
_LARGEST_REWARD = 1e30
#: What to do about an answer without a window.
NAME_WINDOW = "; give one with --window"
CUT = "characters that were cut and are replaced"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One answer of a file; fields are those of `datasets.Sample`, None where the file does not say.

    Attributes:
        place: where in the file it stands.
        group_number: of the group in the file; a group without a moment of its own gets one by it.
        facts: what the game reported of the step.
        never_known: whether the reward that is missing can never be known.
        tools, tool_calls, reasoning: as of `trajectories.Exchange`.
        refused: as of `trajectories.RawSample`; its reward is its own and not its step's.
    """

    place: str
    window: str
    trajectory_id: str
    agent_id: str
    step: int
    call: int
    group_number: int
    messages: list[Message]
    response: str
    model: str
    policy: str | None
    prompt_token_ids: list[int] | None
    token_ids: list[int] | None
    logprobs: list[float] | None
    reward: float | None
    components: dict[str, float | None]
    facts: StepFacts | None
    never_known: bool = False
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refused: bool = False


def art_entries(
    lines: Iterable[bytes | None], window: str | None, windows: WindowGrid = HOURLY
) -> Iterator[Entry | Quarantined]:
    """The answers in ART's JSONL: a line is a group of trajectories.

    An answer is each Choice of a conversation, or its last message where there is none. Their trajectory, agent, step
    and window are in `metadata`; a trajectory that does not say is named by its content.

    Args:
        lines: None for one that is too long.
        window: what all go into; None takes what each says.
    """
    for number, line in enumerate(lines, 1):
        place = f"line {number}"
        if line is None:
            yield refuse(window, place, f"a line of more than {bounds.LINE >> 20} MiB", place.encode())
            continue
        if not line.strip():
            continue
        try:
            group, cut, deep = _read_json(line)
            members = _members(group)
        except _FAULTS as error:
            yield refuse(window, place, _reason(error), line)
            continue
        if cut:
            yield refuse(window, place, CUT, line)
        if deep:
            yield refuse(window, place, CUT_VALUES, CUT_VALUES.encode() + line)
        for index, member in enumerate(members):
            yield from _of_trajectory(member, window, windows, f"{place} trajectory {index}", number - 1)


def _members(group: Any) -> list[Any]:
    """The trajectories of a line of ART's JSONL."""
    reason = None
    if not isinstance(group, dict):
        reason = "it is no object"
    elif "trajectories" not in group:
        reason = 'it has no field "trajectories"'
    elif not isinstance(group["trajectories"], list):
        reason = 'its field "trajectories" is no list'
    if reason is not None:
        raise UnreadableEntryError(f"no trajectory group: {reason}")
    members: list[Any] = group["trajectories"]
    bounds.require_length(members, bounds.GROUP, "trajectories in a group")
    return members


def table_entries(
    rows: Iterable[Mapping[str, Any] | None], window: str | None, windows: WindowGrid = HOURLY
) -> Iterator[Entry | Quarantined]:
    """The answers in rows of a table, as `exports.table_rows` makes them; `messages` and `response` are needed.

    Args:
        rows: None for one that is too large or cannot be decoded.
    """
    for number, row in enumerate(rows):
        place = f"row {number}"
        if row is None:
            reason = f"a row of more than {bounds.LINE >> 20} MiB, or with a value out of range"
            yield refuse(window, place, reason, place.encode())
            continue
        try:
            columns = {
                name: _from_json(row.get(name)) for name in ("messages", "components", "facts", "tools", "tool_calls")
            }
            yield from _read_entry(
                {**row, **columns}, window, windows, place, _count(row.get("group_number") or number)
            )
        except _FAULTS as error:
            content = repr(sorted(row.items())).encode()
            yield refuse(window or _window_of(row, windows), place, _reason(error), content)


def within_bounds(entries: Iterable[Entry | Quarantined]) -> Iterator[Entry | Quarantined]:
    """The entries of a file, as long as all of them together can be held in memory.

    Raises:
        PermanentError: they cannot.
    """
    size = 0
    for entry in entries:
        if isinstance(entry, Entry):
            size += bounds.characters_of(entry.messages) + bounds.size_of([entry.response, entry.tools or ""])
            size += sum(map(bounds.size_of, (entry.token_ids, entry.logprobs, entry.prompt_token_ids)))
        else:
            size += bounds.REFUSAL
        if size > bounds.EXPANDED:
            raise PermanentError(f"{entry.place}: the file expands to more than {bounds.EXPANDED >> 30} GiB; split it")
        yield entry


def _window_of(row: Mapping[str, Any], windows: WindowGrid) -> str | None:
    """The window that a row names, where it names one."""
    try:
        return windows.parse(row["window"]).id
    except _FAULTS:
        return None


def _of_trajectory(
    member: Any, window: str | None, windows: WindowGrid, place: str, group: int
) -> Iterator[Entry | Quarantined]:
    """The answers of a trajectory; one that cannot be read costs no other."""
    try:
        if not isinstance(member, dict) or not isinstance(member.get("messages_and_choices"), list):
            raise UnreadableEntryError("a trajectory without messages_and_choices")
        about = {**_mapping(member.get("metadata"))}
        about |= {name: _from_json(about.get(name)) for name in ("facts", "prompt_token_ids", "components")}
        about.setdefault("trajectory_id", "import-" + content_id(member)[:24])
        metrics = {k: v for k, v in _mapping(member.get("metrics")).items() if k != "advantage"}
        about |= {
            "tools": member.get("tools"),
            "reward": member.get("reward"),
            "components": about["components"] or metrics,
        }
        turns, fault = read_turns(member["messages_and_choices"])
    except _FAULTS as error:
        yield refuse(window, place, _reason(error), value_bytes(member))
        return
    for turn in turns:
        try:
            yield from _read_entry({**about, **turn}, window, windows, place, group)
        except _FAULTS as error:
            yield refuse(window, place, _reason(error), value_bytes([member, turn.get("step")]))
    if fault is not None:
        yield refuse(window, place, fault, value_bytes(member))


def _tokens(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Token ids and log-probabilities of a Choice, where each token is written `token_id:<n>`."""
    content = _mapping(choice.get("logprobs")).get("content")
    if not isinstance(content, list) or not content:
        return {}
    tokens = [_mapping(token) for token in content]
    names = [token.get("token") for token in tokens]
    if not all(isinstance(name, str) and name.startswith("token_id:") for name in names):
        return {}
    return {
        "token_ids": [str(name).removeprefix("token_id:") for name in names],
        "logprobs": [token.get("logprob") for token in tokens],
    }


def _read_entry(
    fields: Mapping[str, Any], window: str | None, windows: WindowGrid, place: str, group: int
) -> Iterator[Entry | Quarantined]:
    """A checked entry from what a file told of it, and what was left out of it."""
    components, unread = _components(fields.get("components"))
    if fields.get("answer") is not None:
        answer = read_message_with_text({"role": "assistant", **fields["answer"]})
        fields = {**fields, "response": answer.content, "answer": answer, **_tokens(fields["choice"])}
    entry = _entry({**fields, "components": components}, window, windows, place, group)
    yield entry
    for name in unread:
        reason = f"a component that is no number: {name[:40]}"
        yield refuse(entry.window, place, reason, value_bytes(fields.get("components")), entry.trajectory_id)


def _components(values: Any) -> tuple[dict[str, float | None], list[str]]:
    """The components that are numbers or not known, and the names of those that are neither."""
    components: dict[str, float | None] = {}
    unread = []
    bounds.require_length(_mapping(values), bounds.COMPONENTS, "components of a reward")
    for key, value in _mapping(values).items():
        name = _text(key) or ""
        if value is None or (isinstance(value, int | float) and abs(value) <= _LARGEST_REWARD):
            components[name] = None if value is None else float(value)
        elif isinstance(value, int | float):
            unread.append(name)
    return components, unread


def _entry(fields: Mapping[str, Any], window: str | None, windows: WindowGrid, place: str, group: int) -> Entry:
    messages = read_messages(fields.get("messages"))
    response = fields.get("response")
    if not messages or not isinstance(response, str):
        raise UnreadableEntryError("an answer without a prompt or without a text")
    answer = fields.get("answer") or read_message_with_text({**fields, "role": "assistant", "content": response})
    tools = read_tools(fields.get("tools"))
    bounds.require_conversation([*messages, answer], tools)
    placed = window or _text(fields.get("window"))
    if placed is None:
        raise UnreadableEntryError(f"it does not say its window{NAME_WINDOW}")
    windows.parse(placed)
    facts = fields.get("facts")
    trajectory = _text(fields.get("trajectory_id")) or "import-" + content_id([messages, response])[:24]
    ids, logprobs = _integers(fields.get("token_ids")), fields.get("logprobs")
    if ids is not None and (not isinstance(logprobs, list) or len(logprobs) != len(ids)):
        raise UnreadableEntryError("as many log-probabilities as tokens are needed")
    return Entry(
        place=place,
        window=placed,
        trajectory_id=trajectory,
        agent_id=_text(fields.get("agent_id")) or trajectory,
        step=_count(fields.get("step") or 0),
        call=_count(fields.get("call") or 0),
        group_number=group,
        messages=messages,
        response=response,
        model=_text(fields.get("model")) or _text(fields.get("policy")) or "",
        policy=_text(fields.get("policy")),
        prompt_token_ids=_integers(fields.get("prompt_token_ids")),
        token_ids=ids,
        logprobs=None if ids is None or logprobs is None else [_finite(logprob) for logprob in logprobs],
        reward=None if fields.get("reward") is None else _finite(fields["reward"]),
        components=fields["components"],
        facts=None if facts is None else _step_facts(facts),
        never_known=fields.get("skip_reason") == NEVER_KNOWN,
        tools=tools,
        tool_calls=answer.tool_calls,
        reasoning=answer.reasoning,
        refused=fields.get("refused") is True,
    )


def _step_facts(fields: Any) -> StepFacts:
    if not isinstance(fields, Mapping):
        raise UnreadableEntryError("facts that are no object")
    try:
        facts = trajectories.restore_named_step(fields)
    except msgspec.ValidationError as error:
        raise UnreadableEntryError(f"facts that cannot be read: {error}") from None
    bounds.require_facts(facts)
    return facts


#: What looking at a hostile value may raise.
_FAULTS = (
    *(msgspec.MsgspecError, UnreadableEntryError, UnreadableMessageError, PermanentError),
    *(KeyError, TypeError, ValueError, OverflowError, RecursionError),
)


def refuse(window: str | None, place: str, reason: str, content: bytes, trajectory: str | None = None) -> Quarantined:
    digest = bytes_id([content])
    return Quarantined(window or "", trajectory or f"import-{digest[:24]}", reason, place, digest)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return NESTED_TOO_DEEPLY
    if isinstance(error, UnreadableMessageError):
        return "tools that cannot be read"
    text = str(error) or type(error).__name__
    return (f"not JSON: {text}" if type(error) is msgspec.DecodeError else text)[:300]


def value_bytes(value: Any) -> bytes:
    try:
        return canonical_json(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value).encode("utf-8", "backslashreplace")


def _read_json(text: bytes) -> tuple[Any, int, int]:
    """The value of a JSON text, how many characters in it were cut, and how many values for being nested too deeply.

    A number out of range is infinite or NaN.
    """
    text, deep = cut_nesting(text)
    try:
        return msgspec.json.decode(text), 0, deep
    except msgspec.DecodeError as error:
        repaired, cut = replace_halves(text)
        try:
            return json.loads(repaired), cut, deep
        except ValueError:
            raise error from None


def _from_json(value: Any) -> Any:
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    return _read_json(value)[0] if isinstance(value, bytes) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    """A name as text that PostgreSQL can hold, and index."""
    return bounds.require_name(value.replace("\0", "\ufffd"), "a name") if isinstance(value, str) and value else None


def _count(value: Any) -> int:
    if not is_number(value) or not 0 <= value <= _LARGEST or value != int(value):
        raise UnreadableEntryError(f"no step or call: {str(value)[:40]}")
    return int(value)


def _integers(value: Any) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise UnreadableEntryError("token ids that are no list")
    bounds.require_length(value, bounds.TOKENS, "tokens")
    try:
        numbers = [int(item) for item in value]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if not numbers or any(not 0 <= number <= _LARGEST for number in numbers):
        raise UnreadableEntryError("a token id that is none")
    return numbers


def _finite(value: Any) -> float:
    number = as_number(value) if is_number(value) else float("nan")
    if not isfinite(number) or abs(number) > _LARGEST_REWARD:
        raise UnreadableEntryError("a reward, component or log-probability that is no number")
    return number
