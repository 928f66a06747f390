"""Trajectories from files: ART's JSONL of trajectory groups, or rows of a table, as `exports` writes them.

A file of another origin needs a conversation that ends in an answer. Its rewards are kept apart from what the policy
saw. What cannot be read comes out as a reason with its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.imported_rewards import ImportedRewards, ImportedStep
from babylon_assets.domain.trajectories import Quarantined, RawSample, StepFacts, TrajectoryRecord
from babylon_assets.domain.windows import HOURLY, Window, WindowGrid
<<<<<<< HEAD
from babylon_assets.environments.files import bounds

_LARGEST = 2**31 - 1
_LARGEST_REWARD = 1e30


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
=======
from babylon_assets.environments.files.entries import Entry, art_entries, refuse, table_entries, value_bytes

__all__ = ["Entry", "Imported", "ImportedCall", "arranged", "art_entries", "table_entries"]
>>>>>>> ca87d610981bd7cf21a8afbeced7be4adb47c118


class ImportedCall(NamedTuple):
    """An answer whose tokens came with it, to be recorded as a call."""

    call_id: str
    record: TrajectoryRecord
    sample: RawSample
    entry: Entry


class Imported(NamedTuple):
    """What a file has of one window."""

    records: list[tuple[TrajectoryRecord, ImportedRewards]]
    calls: list[ImportedCall]


<<<<<<< HEAD
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
            yield _bad(window, place, f"a line of more than {bounds.LINE >> 20} MiB", place.encode())
            continue
        if not line.strip():
            continue
        try:
            group = msgspec.json.decode(line)
            members = group["trajectories"] if isinstance(group, dict) else None
            if not isinstance(members, list):
                raise _BadError("a line that is no group of trajectories")
        except (msgspec.MsgspecError, _BadError, KeyError, ValueError, RecursionError) as error:
            yield _bad(window, place, _reason(error), line)
            continue
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
            yield _bad(window, place, f"a row of more than {bounds.LINE >> 20} MiB", place.encode())
            continue
        try:
            columns = {name: _from_json(row.get(name)) for name in ("messages", "components", "facts")}
            yield _entry({**row, **columns}, window, windows, place, _count(row.get("group_number") or number))
        except _FAULTS as error:
            yield _bad(window or _window_of(row, windows), place, _reason(error), repr(sorted(row.items())).encode())


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
    try:
        if not isinstance(member, dict) or not isinstance(member.get("messages_and_choices"), list):
            raise _BadError("a trajectory without messages_and_choices")
        about = {**_mapping(member.get("metadata"))}
        about |= {name: _from_json(about.get(name)) for name in ("facts", "prompt_token_ids", "components")}
        about.setdefault("trajectory_id", "import-" + content_id(member)[:24])
        metrics = {k: v for k, v in _mapping(member.get("metrics")).items() if k != "advantage"}
        about |= {"reward": member.get("reward"), "components": about["components"] or metrics}
        entries = [
            _entry({**about, **turn}, window, windows, place, group) for turn in _turns(member["messages_and_choices"])
        ]
    except _FAULTS as error:
        yield _bad(window, place, _reason(error), _bytes(member))
        return
    yield from entries


def _turns(items: list[Any]) -> list[dict[str, Any]]:
    """Each answer with the conversation before it; `step` counts them where there are several."""
    turns: list[dict[str, Any]] = []
    before: list[Any] = []
    choices = any(isinstance(item, dict) and "message" in item for item in items)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise _BadError("a message that is no object")
        message = _mapping(item.get("message")) if "message" in item else item
        is_answer = "message" in item if choices else index == len(items) - 1 and item.get("role") == "assistant"
        if is_answer:
            content = message.get("content")
            turns.append({"messages": list(before), "response": content, **_tokens(item)})
        before.append(message)
    if not turns:
        raise _BadError("a conversation without an answer")
    return turns if len(turns) == 1 else [{**turn, "step": number} for number, turn in enumerate(turns)]


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


def _entry(fields: Mapping[str, Any], window: str | None, windows: WindowGrid, place: str, group: int) -> Entry:
    """A checked entry from what a file told of it."""
    messages = msgspec.convert(fields.get("messages"), list[Message])
    response = fields.get("response")
    if not messages or not isinstance(response, str):
        raise _BadError("an answer without a prompt or without a text")
    bounds.require_conversation(messages, response)
    placed = window or _text(fields.get("window"))
    if placed is None:
        raise _BadError("it does not say its window; give one with --window")
    windows.parse(placed)
    facts, components = fields.get("facts"), _mapping(fields.get("components"))
    bounds.require_length(components, bounds.COMPONENTS, "components of a reward")
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
        components={
            _text(name) or "": None if value is None else _finite(float(value))
            for name, value in components.items()
            if value is None or isinstance(value, int | float)
        },
        facts=None if facts is None else _step_facts(facts),
        never_known=fields.get("skip_reason") == NEVER_KNOWN,
    )


def _step_facts(fields: Any) -> StepFacts:
    if not isinstance(fields, Mapping):
        raise _BadError("facts that are no object")
    facts = trajectories.restore_named_step(fields)
    bounds.require_facts(facts)
    return facts


=======
>>>>>>> ca87d610981bd7cf21a8afbeced7be4adb47c118
def arranged(
    entries: Iterable[Entry | Quarantined], window: str | None, moment_seconds: float, windows: WindowGrid = HOURLY
) -> tuple[dict[str, Imported], list[Quarantined]]:
    """The entries as trajectories, by window, and what was refused.

    An answer that stands in the file twice counts once; another answer, or another reward, for the same step and call
    is refused. What has no window of its own is refused into the first window of the file.

    Raises:
        PermanentError: nothing in the file says a window, and none is given.
    """
    by_place: dict[tuple[str, str], dict[tuple[int, int], Entry]] = defaultdict(dict)
    refused: list[Quarantined] = []
    for entry in entries:
        if isinstance(entry, Quarantined):
            refused.append(entry)
            continue
        members = by_place[entry.window, entry.trajectory_id]
        if reason := _against(entry, members):
            refused.append(refuse(entry.window, entry.place, reason, value_bytes(entry), entry.trajectory_id))
        else:
            members.setdefault((entry.step, entry.call), entry)
    first = window or min((name for name, _ in by_place), default=None)
    if first is None and refused:
        raise PermanentError(f"{refused[0].place}: {refused[0].reason}; nothing else in the file says a window")
    imported: dict[str, Imported] = defaultdict(lambda: Imported([], []))
    for (name, trajectory), members in sorted(by_place.items()):
        record, given, calls = _record(
            windows.parse(name), trajectory, [members[key] for key in sorted(members)], moment_seconds
        )
        imported[name].records.append((record, given))
        imported[name].calls.extend(calls)
    return dict(imported), [msgspec.structs.replace(bad, window=bad.window or first or "") for bad in refused]


def _against(entry: Entry, members: Mapping[tuple[int, int], Entry]) -> str | None:
    """Why an answer cannot stand beside those of its trajectory that came before."""
    same = members.get((entry.step, entry.call))
    if same is not None and _content(same) != _content(entry):
        return "another answer for the same step and call"
    beside = [other for (step, _), other in members.items() if step == entry.step]
    if any((other.reward, other.agent_id) != (entry.reward, entry.agent_id) for other in beside):
        return "another reward or agent for the same step"
    return None


def _record(
    window: Window, trajectory: str, entries: list[Entry], moment_seconds: float
) -> tuple[TrajectoryRecord, ImportedRewards, list[ImportedCall]]:
    samples = [_sample(entry) for entry in entries]
    steps = {entry.step: entry for entry in reversed(entries)}
    facts = [_facts(window, steps[step], moment_seconds) for step in sorted(steps)]
    times = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=fact.timestamp_ms) for fact in facts]
    given = ImportedRewards(
        [_imported_step(steps[fact.step], fact) for fact in facts],
        [raw.call_id for raw in samples if raw.call_id is not None],
    )
    record = TrajectoryRecord(
        window=window.id,
        trajectory_id=trajectory,
        agent_id=entries[0].agent_id,
        scenario_id=None,
        shape="full",
        start_time=min(times),
        end_time=max(times),
        final_status="imported",
        final_balance=None,
        final_pnl=None,
        content_hash=content_id([window.id, [_content(entry) for entry in entries], given]),
        samples=samples,
        facts=facts,
    )
    calls = [
        ImportedCall(raw.call_id, record, raw, entry)
        for raw, entry in zip(samples, entries, strict=True)
        if raw.call_id is not None
    ]
    return record, given, calls


def _content(entry: Entry) -> Any:
    """All that an entry says, but not where it stands in the file, unless its moment comes of that."""
    number = entry.group_number if entry.facts is None else 0
    return msgspec.to_builtins(msgspec.structs.replace(entry, place="", group_number=number))


def _sample(entry: Entry) -> RawSample:
    """An answer whose tokens are there names the call that they are recorded as, by its content."""
    call_id = None if entry.token_ids is None else "import-" + content_id(_content(entry))[:32]
    at = entry.facts.timestamp_ms if entry.facts else None
    return RawSample(
        entry.step, entry.call, call_id, entry.policy or entry.model, None, at, entry.messages, entry.response
    )


def _facts(window: Window, entry: Entry, moment_seconds: float) -> StepFacts:
    """The step's facts; where the file has none, a moment that keeps the file's groups apart."""
    if entry.facts is not None:
        return msgspec.structs.replace(entry.facts, step=entry.step)
    start = int(window.start.timestamp() * 1000)
    moment = start + int(entry.group_number * 1000 * moment_seconds)
    time = min(moment, int(window.end.timestamp() * 1000) - 1)
    return StepFacts(
        step=entry.step,
        timestamp_ms=time,
        moment_ms=moment,
        action_type="",
        success=None,
        error=None,
        invalid=False,
    )


def _imported_step(entry: Entry, fact: StepFacts) -> ImportedStep:
    unknown = "unknown" if entry.never_known else "pending"
    state = unknown if entry.reward is None else "invalid" if fact.invalid else "final"
    return ImportedStep(entry.step, state, entry.reward, entry.components)
<<<<<<< HEAD


#: What looking at a hostile value may raise.
_FAULTS = (
    *(msgspec.MsgspecError, _BadError, PermanentError),
    *(KeyError, TypeError, ValueError, OverflowError, RecursionError),
)


def _bad(window: str | None, place: str, reason: str, content: bytes, trajectory: str | None = None) -> Quarantined:
    digest = bytes_id([content])
    return Quarantined(window or "", trajectory or f"import-{digest[:24]}", reason, place, digest)


def refusal(record: TrajectoryRecord, reason: str) -> Quarantined:
    """A trajectory that was read and cannot be stored."""
    return Quarantined(record.window, record.trajectory_id, reason[:300], "", record.content_hash)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = str(error) or type(error).__name__
    return (f"not JSON: {text}" if type(error) is msgspec.DecodeError else text)[:300]


def _bytes(value: Any) -> bytes:
    try:
        return canonical_json(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value).encode("utf-8", "backslashreplace")


def _from_json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


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
=======
>>>>>>> ca87d610981bd7cf21a8afbeced7be4adb47c118
