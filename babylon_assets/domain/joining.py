"""Which recorded answer belongs to which step: calls joined to the trajectories of a window, each used once.

The game keeps neither tokens nor log-probabilities, and of its live agents not even the prompt; the record made when an
answer was sampled has all of it. What could belong to more than one place is counted and left aside, never guessed.
What a sample then trains as is decided in `domain.datasets`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from babylon_assets.domain.trajectories import CallHead, Message, RawSample, StoredSamples, TrajectoryRecord

_Raw = RawSample | CallHead
_Place = tuple[TrajectoryRecord, int]
_Key = tuple[str, int]
_Text = tuple[tuple[tuple[str, str], ...], str]


class RecordedCall(Protocol):
    """What is needed of an answer that was recorded when it was sampled."""

    @property
    def created_at(self) -> datetime: ...
    @property
    def model(self) -> str: ...
    @property
    def policy(self) -> str | None: ...
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
    def prompt_token_ids(self) -> Sequence[int] | None: ...
    @property
    def token_ids(self) -> Sequence[int] | None: ...
    @property
    def logprobs(self) -> Sequence[float] | None: ...
    @property
    def temperature(self) -> float | None: ...


#: What a join counts; see `JoinedWindow`.
COUNTS = (
    *("calls_joined", "calls_that_differ", "calls_claimed_twice", "calls_ambiguous"),
    *("trajectories_without_calls", "steps_without_calls"),
)


class JoinedSample(NamedTuple):
    """A sample of a record, without its texts where the record has them, and the call that recorded it, if any."""

    record: TrajectoryRecord
    raw: RawSample | CallHead
    call: RecordedCall | None


@dataclass(frozen=True, slots=True)
class JoinedWindow:
    """The samples of a window and, for a person, what the join came to.

    Attributes:
        counts: `calls_joined` (found without an id), `calls_that_differ` (the id's record holds another text),
            `calls_claimed_twice` (two samples name one call: neither gets it), `calls_ambiguous` (could belong to more
            than one place), `trajectories_without_calls` and `steps_without_calls` (nothing of them can be trained on).
    """

    samples: list[JoinedSample]
    counts: dict[str, int]


def named_calls(records: Iterable[TrajectoryRecord]) -> list[str]:
    """The ids of the calls that the samples of these records name."""
    return [raw.call_id for record in records for raw in _raws(record) if raw.call_id]


def join_calls(records: Iterable[TrajectoryRecord], calls: Mapping[str, RecordedCall]) -> JoinedWindow:
    """Join calls, by their ids, to the samples and steps of records.

    A sample that names its call gets that call, if its text is the same. One whose id is not known gets the call of its
    trajectory, or of its agent and time, that has its very text. A live record, of which the game keeps no call, gets
    its samples from the calls of its trajectory, or else of its agent between its start and its end: a call that names
    a step belongs to it; without steps, as many calls as steps belong to them in the order of time.
    """
    return _Join(sorted(records, key=lambda record: record.trajectory_id), calls).result()


class _Join:
    def __init__(self, records: list[TrajectoryRecord], calls: Mapping[str, RecordedCall]) -> None:
        self._records = records
        self._calls = calls
        self._counts = Counter(dict.fromkeys(COUNTS, 0))
        self._free = dict(calls)
        self._by_agent: dict[str, list[TrajectoryRecord]] = defaultdict(list)
        for record in records:
            self._by_agent[record.agent_id].append(record)
        self._by_id = {record.trajectory_id: record for record in records}
        self._texts = _Texts()

    def result(self) -> JoinedWindow:
        calls: dict[_Key, RecordedCall | None] = {}
        if self._calls:
            places = [(record, place) for record in self._records for place in range(len(record.samples))]
            calls = self._by_call_id(places)
            calls |= self._by_text([place for place in places if _key(*place) not in calls])
        samples = [
            JoinedSample(record, raw, calls.get((record.trajectory_id, place)) if calls else None)
            for record in self._records
            for place, raw in enumerate(_raws(record))
        ]
        samples += self._of_live_records()
        self._count_uncovered(samples)
        return JoinedWindow(samples, dict(self._counts))

    def _count_uncovered(self, samples: list[JoinedSample]) -> None:
        covered: dict[str, set[int]] = defaultdict(set)
        for record, raw, _ in samples:
            covered[record.trajectory_id].add(raw.step)
        nothing = [record for record in self._records if record.trajectory_id not in covered]
        self._counts["trajectories_without_calls"] = len(nothing)
        steps = sum(len(record.facts) for record in self._records)
        self._counts["steps_without_calls"] = steps - sum(map(len, covered.values()))

    def _by_call_id(self, places: Sequence[_Place]) -> dict[_Key, RecordedCall | None]:
        """What the samples that name a known call get: the call, or None where it is not theirs alone."""
        claims: dict[str, list[_Place]] = defaultdict(list)
        for record, place in places:
            call_id = _raws(record)[place].call_id
            if call_id is not None and call_id in self._calls:
                claims[call_id].append((record, place))
        calls: dict[_Key, RecordedCall | None] = {}
        for call_id, claimants in claims.items():
            call = self._free.pop(call_id)
            alike = [claimant for claimant in claimants if self._texts.of(*claimant) == _text(call)]
            self._counts["calls_that_differ"] += len(claimants) - len(alike)
            self._counts["calls_claimed_twice"] += len(alike) > 1
            calls |= {_key(*place): None for place in claimants}
            if len(alike) == 1:
                calls[_key(*alike[0])] = call
        return calls

    def _by_text(self, places: Sequence[_Place]) -> dict[_Key, RecordedCall]:
        """Calls that nobody named, where one sample alone of their trajectory, or agent and time, has their text."""
        alike: dict[_Text, list[_Place]] = defaultdict(list)
        for record, place in places if self._free else ():
            alike[self._texts.of(record, place)].append((record, place))
        pairs = [
            (call_id, _key(record, place))
            for call_id, call in (self._free.items() if alike else ())
            for record, place in alike.get(_text(call), ())
            if _may_own(record, call)
        ]
        joined = _without_rivals(pairs)
        calls = {key: self._calls[call_id] for call_id, key in joined}
        self._use({call_id for call_id, _ in pairs}, len(joined))
        return calls

    def _of_live_records(self) -> Iterator[JoinedSample]:
        """Samples of the live records, made of the calls that can be of no other record."""
        theirs: dict[str, list[str]] = defaultdict(list)
        for call_id, call in list(self._free.items()):
            owners = self._owners(call)
            if len(owners) == 1 and owners[0].shape == "live":
                theirs[owners[0].trajectory_id].append(call_id)
            elif any(record.shape == "live" for record in owners):
                self._use({call_id}, 0)
        for trajectory_id, call_ids in sorted(theirs.items()):
            record = self._by_id[trajectory_id]
            placed = _placed(
                record,
                sorted(call_ids, key=lambda identifier: (self._calls[identifier].created_at, identifier)),
                self._calls,
            )
            for step, call_id in sorted(placed.items()):
                yield JoinedSample(record, _sample(step, call_id, self._calls[call_id]), self._calls[call_id])
            self._use(set(call_ids), len(placed))

    def _owners(self, call: RecordedCall) -> list[TrajectoryRecord]:
        if call.trajectory_id is not None:
            owner = self._by_id.get(call.trajectory_id)
            return [] if owner is None else [owner]
        return [record for record in self._by_agent.get(call.agent_id or "", ()) if _may_own(record, call)]

    def _use(self, call_ids: set[str], joined: int) -> None:
        """Nobody else gets these calls: so many were joined, the rest are ambiguous."""
        self._counts["calls_joined"] += joined
        self._counts["calls_ambiguous"] += len(call_ids) - joined
        for call_id in call_ids:
            del self._free[call_id]


def _may_own(record: TrajectoryRecord, call: RecordedCall) -> bool:
    if call.trajectory_id is not None:
        return call.trajectory_id == record.trajectory_id
    return call.agent_id == record.agent_id and record.start_time <= call.created_at <= record.end_time


def _without_rivals(pairs: Sequence[tuple[str, _Key]]) -> list[tuple[str, _Key]]:
    """The pairs in which neither the call nor the sample appears in another pair."""
    calls, places = Counter(call_id for call_id, _ in pairs), Counter(key for _, key in pairs)
    return [(call_id, key) for call_id, key in pairs if calls[call_id] == places[key] == 1]


def _placed(record: TrajectoryRecord, call_ids: list[str], calls: Mapping[str, RecordedCall]) -> dict[int, str]:
    """The call of each step; a step that two calls name has none."""
    steps = [fact.step for fact in sorted(record.facts, key=lambda fact: (fact.timestamp_ms, fact.step))]
    named = [(calls[call_id].step, call_id) for call_id in call_ids]
    if all(step is None for step, _ in named):
        return dict(zip(steps, call_ids, strict=True)) if len(steps) == len(call_ids) else {}
    times = Counter(step for step, _ in named)
    return {step: call_id for step, call_id in named if step is not None and times[step] == 1 and step in steps}


def _sample(step: int, call_id: str, call: RecordedCall) -> RawSample:
    at = int(call.created_at.timestamp() * 1000)
    model = call.policy or call.model
    return RawSample(step, 0, call_id, model, call.temperature, at, list(call.messages), call.response)


def _key(record: TrajectoryRecord, place: int) -> _Key:
    return record.trajectory_id, place


def _raws(record: TrajectoryRecord) -> Sequence[_Raw]:
    """The samples of a record, their texts unread where they are kept as bytes."""
    return record.samples.heads if isinstance(record.samples, StoredSamples) else record.samples


class _Texts:
    """The texts of records, of which the last one's are kept: samples are asked for record by record."""

    def __init__(self) -> None:
        self._record: TrajectoryRecord | None = None
        self._samples: list[RawSample] = []

    def of(self, record: TrajectoryRecord, place: int) -> _Text:
        if record is not self._record:
            self._record, self._samples = record, list(record.samples)
        return _text(self._samples[place])


def _text(exchange: RawSample | RecordedCall) -> _Text:
    return tuple((message.role, message.content) for message in exchange.messages), exchange.response
