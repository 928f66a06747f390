"""Whether a recorded call may be of a trajectory that it names or fits: who asked, when, and whether it asked again.

A caller says what it likes; the environment's record and the recorder's own clock say what may be believed of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from babylon_assets.domain.trajectories import Message, ToolCall, TrajectoryRecord

#: How far the clocks of the environment and of the recorder may be apart.
CLOCK_SKEW = timedelta(seconds=60)
#: How long after the time of a step its last call is made, with all that a game tries.
PATIENCE = timedelta(minutes=5)
#: The same question asked again so soon after the last one was answered is a retry.
RETRY = timedelta(seconds=30)


class Claim(Protocol):
    """What is needed of a recorded call."""

    @property
    def created_at(self) -> datetime: ...
    @property
    def received_at(self) -> datetime | None: ...
    @property
    def latency_ms(self) -> float | None: ...
    @property
    def key_name(self) -> str | None: ...
    @property
    def agent_id(self) -> str | None: ...
    @property
    def trajectory_id(self) -> str | None: ...
    @property
    def step(self) -> int | None: ...
    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def response(self) -> str: ...
    @property
    def tool_calls(self) -> tuple[ToolCall, ...]: ...


def is_foreign(record: TrajectoryRecord, call: Claim) -> bool:
    """Whether a call that names the trajectory is not its agent's. With a key, a call has to say whose it is."""
    if call.agent_id is None:
        return call.key_name is not None
    return call.agent_id != record.agent_id


def is_untimely(record: TrajectoryRecord, call: Claim) -> bool:
    """Whether the call cannot have led to what it names, by the time it gives or by the recorder's clock.

    A call of a trajectory is made between its start and its end; one of a step, between the steps before and after it,
    and within `PATIENCE`: by then nobody knows what the step will turn out to be worth. The clocks may differ by
    `CLOCK_SKEW`.
    """
    return not fits_step(record, call.step, call)


def is_anonymous(call: Claim) -> bool:
    """Whether a call says neither whose it is nor of which trajectory: only its text can tell."""
    return call.agent_id is None and call.trajectory_id is None


def fits_step(record: TrajectoryRecord, step: int | None, call: Claim) -> bool:
    """Whether a call was made when the record's step, or where none is given its episode, was decided."""
    earliest, latest = _span(record, step)
    times = [call.created_at] if call.received_at is None else [call.created_at, call.received_at]
    return all(earliest <= time <= latest for time in times)


def is_late(record: TrajectoryRecord, step: int, call: Claim) -> bool:
    """Whether a call was made when it could have been known what became of the step."""
    return clock(call) > _span(record, step)[1]


def _span(record: TrajectoryRecord, step: int | None) -> tuple[datetime, datetime]:
    """When a call of the record, or of one of its steps, may have been made."""
    start, end = record.start_time, record.end_time
    own = next((fact.timestamp_ms for fact in record.facts if fact.step == step), None)
    if own is not None and step is not None:
        before = [fact.timestamp_ms for fact in record.facts if fact.step < step and fact.timestamp_ms < own]
        after = [fact.timestamp_ms for fact in record.facts if fact.step > step and fact.timestamp_ms > own]
        if _has_time(record, step, own):
            after.append(own + int(PATIENCE.total_seconds() * 1000))
        start, end = _time(max(before), start) if before else start, _time(min(after), end) if after else end
    return _moved(start, -CLOCK_SKEW), _moved(end, CLOCK_SKEW)


def _has_time(record: TrajectoryRecord, step: int, own: int) -> bool:
    """Whether a step has a time of its own; one without has that of the trajectory's start."""
    start = int(record.start_time.timestamp() * 1000)
    others = [fact for fact in record.facts if fact.step != step]
    return own != start or (all(fact.step > step for fact in others) and any(f.timestamp_ms > start for f in others))


def _time(milliseconds: int, otherwise: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return otherwise


def _moved(time: datetime, by: timedelta) -> datetime:
    try:
        return time + by
    except OverflowError:
        return time


def without_retries(calls: Mapping[str, Claim], *, same_answer: bool) -> list[str]:
    """The ids of the calls, of which the last of each question stands for those that it repeats.

    They are in the order in which their questions were asked first: a retry that came after the next question is still
    the answer to its own. A call repeats another one of the same key, agent, trajectory, step and messages that was
    made before it, and that ended less than `RETRY` before it was made or had not ended yet. Several choices of one
    question have one time and are no retries: which of them was used is not known.

    Args:
        same_answer: only calls with the same answer are retries of each other.
    """
    last: dict[Hashable, str] = {}
    first = {call_id: call_id for call_id in calls}
    repeated = set()
    for call_id in sorted(calls, key=lambda call_id: (clock(calls[call_id]), call_id)):
        call = calls[call_id]
        question = _question(call), (call.response, call.tool_calls) if same_answer else None
        if question in last and _follows(calls[last[question]], call):
            repeated.add(last[question])
            first[call_id] = first[last[question]]
        last[question] = call_id
    order = {call_id: place for place, call_id in enumerate(in_time(calls, calls))}
    return sorted(calls.keys() - repeated, key=lambda call_id: order[first[call_id]])


def in_time(call_ids: Iterable[str], calls: Mapping[str, Claim]) -> list[str]:
    """The ids in the order in which the calls were made."""
    return sorted(call_ids, key=lambda call_id: (calls[call_id].created_at, call_id))


def clock(call: Claim) -> datetime:
    """When the call was made, by the recorder's own clock where it is known."""
    return call.received_at or call.created_at


def _question(call: Claim) -> Hashable:
    return (call.key_name, call.agent_id, call.trajectory_id, call.step, tuple(call.messages))


def _follows(before: Claim, call: Claim) -> bool:
    gap = clock(call) - clock(before)
    return timedelta(0) < gap <= RETRY + timedelta(milliseconds=before.latency_ms or 0)
