"""Which recorded answer belongs to which step: calls joined to the trajectories of a window, each used once.

The game keeps neither tokens nor log-probabilities, and of its live agents not even the prompt; the record made when an
answer was sampled has all of it. What could belong to more than one place is counted and left aside, never guessed.
What a sample then trains as is decided in `domain.datasets`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from babylon_assets.domain import answer_texts, claims
from babylon_assets.domain.answer_texts import Text
from babylon_assets.domain.claims import Claim
from babylon_assets.domain.trajectories import CallHead, RawSample, StoredSamples, TrajectoryRecord

_Raw = RawSample | CallHead
_Place = tuple[TrajectoryRecord, int]
_Key = tuple[str, int]
#: A key, and whether a call is silent about its agent.
_Speaker = tuple[str | None, bool]


class RecordedCall(Claim, Protocol):
    """What is needed of an answer that was recorded when it was sampled."""

    @property
    def model(self) -> str: ...
    @property
    def policy(self) -> str | None: ...
    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...
    @property
    def token_ids(self) -> Sequence[int] | None: ...
    @property
    def logprobs(self) -> Sequence[float] | None: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def sampling(self) -> Mapping[str, Any] | None: ...
    @property
    def tools(self) -> str | None: ...


#: What a join counts; see `JoinedWindow`.
COUNTS = (
    *("calls_joined", "calls_that_differ", "calls_claimed_twice", "calls_ambiguous", "calls_repeated"),
    *("calls_of_other_agents", "calls_of_other_keys", "calls_out_of_time"),
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
            than one place), `calls_repeated` (a later call asked the same again and stands for it),
            `calls_of_other_agents` and `calls_out_of_time` (what they name they cannot have led to),
            `calls_of_other_keys` (another key speaks for that agent), `trajectories_without_calls` and
            `steps_without_calls` (nothing of them can be trained on).
    """

    samples: list[JoinedSample]
    counts: dict[str, int]


def named_calls(records: Iterable[TrajectoryRecord]) -> list[str]:
    """The ids of the calls that the samples of these records name."""
    return [raw.call_id for record in records for raw in _raws(record) if raw.call_id]


def join_calls(records: Iterable[TrajectoryRecord], calls: Mapping[str, RecordedCall]) -> JoinedWindow:
    """Join calls, by their ids, to the samples and steps of records.

    A sample that names its call gets that call, if its text is the same: to the letter, or else as `answer_texts` has
    it, since a source may change the form of an answer. One whose id is not known gets the call of its trajectory, or
    of its agent and time, that has its very text, or else that text in another form. A call that says nothing of its
    caller is joined so too, where one sample alone of that time has its conversation and its answer. A live record, of
    which the game keeps no call, gets its samples from the calls of its trajectory, or else of its agent between its
    start and its end: a call that names a step belongs to it; without steps, as many calls as steps belong to them in
    the order of time.

    What no sample names has to be of the record's agent and time, as `claims` has it. Where several keys speak for an
    agent, one is believed: one that says for whom, then that of calls which the environment names, then the one whose
    calls fit the most steps, then the first. The calls of the others are counted and make nobody ambiguous. A retry is
    one answer.
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
        self._named_keys: dict[str, set[str | None]] = defaultdict(set)
        self._texts = _Texts()

    def result(self) -> JoinedWindow:
        calls: dict[_Key, RecordedCall | None] = {}
        if self._calls:
            places = [(record, place) for record in self._records for place in range(len(record.samples))]
            calls = self._by_call_id(places)
            self._refuse_claims()
            for form in answer_texts.FORMS:
                calls |= self._by_text([place for place in places if _key(*place) not in calls], form)
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
        claimed: dict[str, list[_Place]] = defaultdict(list)
        for record, place in places:
            call_id = _raws(record)[place].call_id
            if call_id is not None and call_id in self._calls:
                claimed[call_id].append((record, place))
        calls: dict[_Key, RecordedCall | None] = {}
        for call_id, claimants in claimed.items():
            call = self._free.pop(call_id)
            alike = self._alike(claimants, call)
            own = [claimant for claimant in alike if claimant[0].agent_id == call.agent_id]
            alike = own if len(own) == 1 else alike
            self._counts["calls_that_differ"] += len(claimants) - len(alike)
            self._counts["calls_claimed_twice"] += len(alike) > 1
            calls |= {_key(*place): None for place in claimants}
            if len(alike) == 1:
                calls[_key(*alike[0])] = call
                self._named_keys[alike[0][0].agent_id].add(call.key_name)
        return calls

    def _alike(self, claimants: Sequence[_Place], call: RecordedCall) -> list[_Place]:
        """Those of the samples whose text is the call's, to the letter or else in another form."""
        for form in answer_texts.FORMS:
            if alike := [claimant for claimant in claimants if self._texts.of(*claimant, form) == form.text(call)]:
                return alike
        return []

    def _refuse_claims(self) -> None:
        """Leave calls aside that cannot be of the trajectory, or of the agent's episode, that they name."""
        for call_id, call in list(self._free.items()):
            records = self._claimed_records(call)
            if any(claims.is_foreign(record, call) for record in records):
                self._leave_aside([call_id], "calls_of_other_agents")
            elif records and all(claims.is_untimely(record, call) for record in records):
                self._leave_aside([call_id], "calls_out_of_time")

    def _claimed_records(self, call: RecordedCall) -> list[TrajectoryRecord]:
        """The record that a call names, or those of its agent that it falls into by the time that it gives."""
        if call.trajectory_id is not None:
            record = self._by_id.get(call.trajectory_id)
            return [] if record is None else [record]
        records = self._by_agent.get(call.agent_id or "", ())
        return [record for record in records if record.start_time <= call.created_at <= record.end_time]

    def _owners(self, call: RecordedCall) -> list[TrajectoryRecord]:
        return [record for record in self._claimed_records(call) if not claims.is_untimely(record, call)]

    def _by_text(self, places: Sequence[_Place], form: answer_texts.Form) -> dict[_Key, RecordedCall]:
        """Calls that nobody named, where one sample alone of their trajectory, or agent and time, has their text."""
        alike: dict[Text, list[_Place]] = defaultdict(list)
        answers = {form.answer(call) for call in self._free.values()}
        for record, place in places if answers else ():
            if (text := self._texts.of(record, place, form, answers)) is not None:
                alike[text].append((record, place))
        rivals: dict[_Key, dict[str, RecordedCall]] = defaultdict(dict)
        for call_id, call in self._free.items() if alike else ():
            for record, place in alike.get(form.text(call), ()):
                if self._may_own(record, place, call):
                    rivals[_key(record, place)][call_id] = call
        agreed = {key: self._without_copies(key, candidates) for key, candidates in rivals.items()}
        agreed = {key: [call_id for call_id in call_ids if call_id in self._free] for key, call_ids in agreed.items()}
        times = Counter(call_id for call_ids in agreed.values() for call_id in call_ids)
        joined = {key: ids[0] for key, ids in agreed.items() if len(ids) == 1 and times[ids[0]] == 1}
        self._use({call_id for call_ids in agreed.values() for call_id in call_ids}, len(joined))
        return {key: self._calls[call_id] for key, call_id in joined.items()}

    def _may_own(self, record: TrajectoryRecord, place: int, call: RecordedCall) -> bool:
        """Whether a call with a sample's text may be that sample's."""
        if claims.is_anonymous(call):
            return claims.fits_step(record, _raws(record)[place].step, call)
        return any(owner is record for owner in self._owners(call))

    def _without_copies(self, key: _Key, candidates: Mapping[str, RecordedCall]) -> list[str]:
        """Of the calls with a sample's text, those of one speaker, and one of each that was asked again."""
        speakers, agent = _by_speaker(candidates), self._by_id[key[0]].agent_id
        chosen = min(speakers, key=lambda speaker: self._rank(agent, speaker, speakers[speaker]))
        self._leave_others_aside(speakers, chosen)
        return self._last_of_each(speakers[chosen], same_answer=True)

    def _rank(
        self, agent: str, speaker: _Speaker, calls: Mapping[str, RecordedCall], placed: int = 0
    ) -> tuple[bool, bool, int, datetime, str]:
        """Of several who speak for an agent the least is believed."""
        key_name, silent = speaker
        first = min(calls, key=lambda call_id: (claims.clock(calls[call_id]), call_id))
        return silent, key_name not in self._named_keys[agent], -placed, claims.clock(calls[first]), first

    def _leave_others_aside(self, speakers: Mapping[_Speaker, Iterable[str]], chosen: _Speaker) -> None:
        for speaker, call_ids in speakers.items():
            if speaker != chosen:
                self._leave_aside(call_ids, "calls_of_other_keys")

    def _last_of_each(self, calls: Mapping[str, RecordedCall], *, same_answer: bool) -> list[str]:
        kept = claims.without_retries(calls, same_answer=same_answer)
        self._leave_aside(calls.keys() - set(kept), "calls_repeated")
        return kept

    def _of_live_records(self) -> Iterator[JoinedSample]:
        """Samples of the live records, made of the calls that can be of no other record."""
        theirs: dict[str, dict[str, RecordedCall]] = defaultdict(dict)
        for call_id, call in list(self._free.items()):
            owners = self._owners(call)
            if len(owners) == 1 and owners[0].shape == "live":
                theirs[owners[0].trajectory_id][call_id] = call
            elif any(record.shape == "live" for record in owners):
                self._use({call_id}, 0)
        for trajectory_id, calls in sorted(theirs.items()):
            record = self._by_id[trajectory_id]
            placed = self._in_time(record, self._placed(record, calls))
            for step, call_id in sorted(placed.items()):
                yield JoinedSample(record, _sample(step, call_id, calls[call_id]), calls[call_id])
            self._use({call_id for call_id in calls if call_id in self._free}, len(placed))

    def _placed(self, record: TrajectoryRecord, calls: Mapping[str, RecordedCall]) -> dict[int, str]:
        """The call of each step of a live record, all of one speaker; the others are left aside."""
        speakers = _by_speaker(calls)
        placed = {speaker: _place(record, several) for speaker, several in speakers.items()}

        def rank(speaker: _Speaker) -> tuple[bool, Any]:
            steps = placed[speaker]
            return not steps, self._rank(record.agent_id, speaker, speakers[speaker], len(steps))

        chosen = min(speakers, key=rank)
        self._leave_others_aside(speakers, chosen)
        used = set(placed[chosen].values())
        kept = set(claims.without_retries(speakers[chosen], same_answer=False))
        self._leave_aside([call_id for call_id in speakers[chosen] if call_id not in kept | used], "calls_repeated")
        return placed[chosen]

    def _in_time(self, record: TrajectoryRecord, placed: Mapping[int, str]) -> dict[int, str]:
        """The calls of steps without those that came too late for theirs, as their order alone did not tell."""
        late = {step: call_id for step, call_id in placed.items() if claims.is_late(record, step, self._calls[call_id])}
        self._leave_aside(late.values(), "calls_out_of_time")
        return {step: call_id for step, call_id in placed.items() if step not in late}

    def _leave_aside(self, call_ids: Iterable[str], count: str) -> None:
        """Nobody gets these calls, and nobody else is kept from his."""
        for call_id in call_ids:
            if self._free.pop(call_id, None) is not None:
                self._counts[count] += 1

    def _use(self, call_ids: set[str], joined: int) -> None:
        """Nobody else gets these calls: so many were joined, the rest are ambiguous."""
        self._counts["calls_joined"] += joined
        self._counts["calls_ambiguous"] += len(call_ids) - joined
        for call_id in call_ids:
            del self._free[call_id]


def _by_speaker(calls: Mapping[str, RecordedCall]) -> dict[_Speaker, dict[str, RecordedCall]]:
    """The calls of each who speaks for an agent: by key, and apart those that do not say for whom."""
    speakers: dict[_Speaker, dict[str, RecordedCall]] = defaultdict(dict)
    for call_id, call in calls.items():
        speakers[call.key_name, call.agent_id is None][call_id] = call
    return speakers


def _place(record: TrajectoryRecord, calls: Mapping[str, RecordedCall]) -> dict[int, str]:
    """The call of each step; a step that two calls name has none, unless one of them repeats the other."""
    steps = [fact.step for fact in sorted(record.facts, key=lambda fact: (fact.timestamp_ms, fact.step))]
    if all(call.step is None for call in calls.values()):
        several = claims.in_time(calls, calls)
        if len(steps) != len(several):
            several = claims.without_retries(calls, same_answer=False)
        return dict(zip(steps, several, strict=True)) if len(steps) == len(several) else {}
    named = [(calls[call_id].step, call_id) for call_id in claims.without_retries(calls, same_answer=False)]
    times = Counter(step for step, _ in named)
    return {step: call_id for step, call_id in named if step is not None and times[step] == 1 and step in steps}


def _sample(step: int, call_id: str, call: RecordedCall) -> RawSample:
    at = int(call.created_at.timestamp() * 1000)
    model = call.policy or call.model
    return RawSample(
        step=step,
        call=0,
        call_id=call_id,
        model=model,
        temperature=call.temperature,
        timestamp_ms=at,
        messages=list(call.messages),
        response=call.response,
        tools=call.tools,
        tool_calls=call.tool_calls,
    )


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

    def of(
        self, record: TrajectoryRecord, place: int, form: answer_texts.Form, answers: Collection[Hashable] | None = None
    ) -> Text | None:
        """The text of a sample; None where its answer is not among `answers`."""
        if record is not self._record:
            self._record, self._samples = record, list(record.samples)
        sample = self._samples[place]
        return form.text(sample) if answers is None or form.answer(sample) in answers else None
