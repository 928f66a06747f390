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
from babylon_assets.domain.content_ids import bytes_id, canonical_json, content_id
from babylon_assets.domain.cut_characters import replace_halves
from babylon_assets.domain.datasets import NEVER_KNOWN
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.trajectories import Message, Quarantined, StepFacts
from babylon_assets.domain.windows import HOURLY, WindowGrid
from babylon_assets.environments.files import bounds

_LARGEST = 2**31 - 1
_LARGEST_REWARD = 1e30
_TOOLS = "a conversation with tools, whose texts are not all that the policy saw"
CUT = "characters that were cut and are replaced"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One answer of a file; fields are those of `datasets.Sample`, None where the file does not say.

    Attributes:
        place: where in the file it stands.
        group_number: of the group in the file; a group without a moment of its own gets one by it.
        facts: what the game reported of the step.
        never_known: whether the reward that is missing can never be known.
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


class _BadError(Exception):
    """What cannot be read, and why."""


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
            group, cut = _read_json(line)
            members = group["trajectories"] if isinstance(group, dict) else None
            if not isinstance(members, list):
                raise _BadError("a line that is no group of trajectories")
        except _FAULTS as error:
            yield refuse(window, place, _reason(error), line)
            continue
        if cut:
            yield refuse(window, place, CUT, line)
        for index, member in enumerate(members):
            yield from _of_trajectory(member, window, windows, f"{place} trajectory {index}", number - 1)


def table_entries(
    rows: Iterable[Mapping[str, Any] | None], window: str | None, windows: WindowGrid = HOURLY
) -> Iterator[Entry | Quarantined]:
    """The answers in rows of a table, as `exports.table_rows` makes them; `messages` and `response` are needed.

    Args:
        rows: None for one that is too large.
    """
    for number, row in enumerate(rows):
        place = f"row {number}"
        if row is None:
            yield refuse(window, place, f"a row of more than {bounds.LINE >> 20} MiB", place.encode())
            continue
        try:
            columns = {name: _from_json(row.get(name)) for name in ("messages", "components", "facts")}
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
            size += bounds.size_of([message.content for message in entry.messages]) + bounds.size_of(entry.response)
            size += sum(map(bounds.size_of, (entry.token_ids, entry.logprobs, entry.prompt_token_ids)))
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
            raise _BadError("a trajectory without messages_and_choices")
        about = {**_mapping(member.get("metadata"))}
        about |= {name: _from_json(about.get(name)) for name in ("facts", "prompt_token_ids", "components")}
        about.setdefault("trajectory_id", "import-" + content_id(member)[:24])
        metrics = {k: v for k, v in _mapping(member.get("metrics")).items() if k != "advantage"}
        about |= {"reward": member.get("reward"), "components": about["components"] or metrics}
        turns, fault = _turns(member["messages_and_choices"])
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


def _turns(items: list[Any]) -> tuple[list[dict[str, Any]], str | None]:
    """Each answer with the conversation before it, and why what comes after them cannot be read.

    `step` counts them where there are several.
    """
    turns: list[dict[str, Any]] = []
    before: list[Any] = []
    fault = None
    choices = any(isinstance(item, dict) and "message" in item for item in items)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            fault = "a message that is no object"
            break
        message = _mapping(item.get("message")) if "message" in item else item
        is_answer = "message" in item if choices else index == len(items) - 1 and item.get("role") == "assistant"
        if is_answer:
            turns.append({"messages": list(before), "answer": message, "choice": item})
        before.append(message)
    if not turns and fault is None:
        fault = "a conversation without an answer"
    several = len(turns) > 1 or fault is not None
    return [{**turn, "step": number} if several else turn for number, turn in enumerate(turns)], fault


def _messages(values: Any) -> list[Message]:
    """The messages of a conversation that consists of texts.

    Raises:
        _BadError: it has tools or something else that is no text: its texts are not all that the policy saw.
    """
    if not isinstance(values, list):
        raise _BadError("an answer without a prompt or without a text")
    return [Message(_role(value), _content_text(value)) for value in values]


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str):
        raise _BadError("a message without a role")
    return role


def _content_text(message: Mapping[str, Any]) -> str:
    """The text of a message; parts are joined where all are texts."""
    if message.get("tool_calls") or message.get("function_call") or message.get("role") in ("tool", "function"):
        raise _BadError(_TOOLS)
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(content, str):
        raise _BadError("a message without a text")
    return content


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
        "token_ids": [int(str(name).removeprefix("token_id:")) for name in names],
        "logprobs": [token.get("logprob") for token in tokens],
    }


def _read_entry(
    fields: Mapping[str, Any], window: str | None, windows: WindowGrid, place: str, group: int
) -> Iterator[Entry | Quarantined]:
    """A checked entry from what a file told of it, and what was left out of it."""
    components, unread = _components(fields.get("components"))
    answer = fields.get("answer")
    if fields.get("tool_calls"):
        raise _BadError(_TOOLS)
    if answer is not None:
        fields = {**fields, "response": _content_text(answer), **_tokens(fields["choice"])}
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
    messages = _messages(fields.get("messages"))
    response = fields.get("response")
    if not messages or not isinstance(response, str):
        raise _BadError("an answer without a prompt or without a text")
    bounds.require_conversation(messages, response)
    placed = window or _text(fields.get("window"))
    if placed is None:
        raise _BadError("it does not say its window; give one with --window")
    windows.parse(placed)
    facts = fields.get("facts")
    trajectory = _text(fields.get("trajectory_id")) or "import-" + content_id([messages, response])[:24]
    ids, logprobs = _integers(fields.get("token_ids")), fields.get("logprobs")
    if ids is not None and (not isinstance(logprobs, list) or len(logprobs) != len(ids)):
        raise _BadError("as many log-probabilities as tokens are needed")
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
    )


def _step_facts(fields: Any) -> StepFacts:
    if not isinstance(fields, Mapping):
        raise _BadError("facts that are no object")
    facts = trajectories.restore_named_step(fields)
    bounds.require_facts(facts)
    return facts


#: What looking at a hostile value may raise.
_FAULTS = (
    *(msgspec.MsgspecError, _BadError, PermanentError),
    *(KeyError, TypeError, ValueError, OverflowError, RecursionError),
)


def refuse(window: str | None, place: str, reason: str, content: bytes, trajectory: str | None = None) -> Quarantined:
    digest = bytes_id([content])
    return Quarantined(window or "", trajectory or f"import-{digest[:24]}", reason, place, digest)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error) or type(error).__name__
    return (f"not JSON: {text}" if type(error) is msgspec.DecodeError else text)[:300]


def value_bytes(value: Any) -> bytes:
    try:
        return canonical_json(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value).encode("utf-8", "backslashreplace")


def _read_json(text: bytes) -> tuple[Any, int]:
    """The value of a JSON text, and how many characters in it were cut. A number out of range is infinite or NaN."""
    try:
        return msgspec.json.decode(text), 0
    except msgspec.DecodeError as error:
        repaired, cut = replace_halves(text)
        try:
            return json.loads(repaired), cut
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
    number = int(value)
    if number != value or not 0 <= number <= _LARGEST:
        raise _BadError(f"no step or call: {str(value)[:40]}")
    return number


def _integers(value: Any) -> list[int] | None:
    if value is None:
        return None
    bounds.require_length(value, bounds.TOKENS, "tokens")
    numbers = [int(item) for item in value]
    if not numbers or any(not 0 <= number <= _LARGEST for number in numbers):
        raise _BadError("a token id that is none")
    return numbers


def _finite(value: Any) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    if not isfinite(number) or abs(number) > _LARGEST_REWARD:
        raise _BadError("a reward, component or log-probability that is no number")
    return number
