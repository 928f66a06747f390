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
from babylon_assets.environments.files.entries import (
    NAME_WINDOW,
    Entry,
    art_entries,
    refuse,
    table_entries,
    value_bytes,
)

__all__ = ["Entry", "Imported", "ImportedCall", "arranged", "art_entries", "table_entries"]

#: What an entry says nothing of where it is not so: its content is as before there was a word for it.
_LATER = ("tools", "tool_calls", "reasoning", "refused")


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
        remedy = "" if refused[0].reason.endswith(NAME_WINDOW) else NAME_WINDOW
        raise PermanentError(f"{refused[0].place}: {refused[0].reason}; nothing else in the file says a window{remedy}")
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
        return f"another answer for step {entry.step}, call {entry.call} of the trajectory {entry.trajectory_id}"
    beside = [other for (step, _), other in members.items() if step == entry.step]
    own = [other.reward for other in (*beside, entry) if not other.refused]
    if any(other.agent_id != entry.agent_id for other in beside) or any(reward != own[0] for reward in own):
        return f"another reward or agent for step {entry.step} of the trajectory {entry.trajectory_id}"
    return None


def _record(
    window: Window, trajectory: str, entries: list[Entry], moment_seconds: float
) -> tuple[TrajectoryRecord, ImportedRewards, list[ImportedCall]]:
    samples = [_sample(entry) for entry in entries]
    steps = {entry.step: entry for entry in reversed(entries)}
    steps |= {entry.step: entry for entry in reversed(entries) if not entry.refused}
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
    content = msgspec.to_builtins(msgspec.structs.replace(entry, place="", group_number=number))
    return {name: value for name, value in content.items() if name not in _LATER or value}


def _sample(entry: Entry) -> RawSample:
    """An answer whose tokens are there names the call that they are recorded as, by its content."""
    call_id = None if entry.token_ids is None else "import-" + content_id(_content(entry))[:32]
    at = entry.facts.timestamp_ms if entry.facts else None
    return RawSample(
        step=entry.step,
        call=entry.call,
        call_id=call_id,
        model=entry.policy or entry.model,
        temperature=None,
        timestamp_ms=at,
        messages=entry.messages,
        response=entry.response,
        refused=entry.refused,
        tools=entry.tools,
        tool_calls=entry.tool_calls,
        reasoning=entry.reasoning,
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


def refusal(record: TrajectoryRecord, reason: str) -> Quarantined:
    """A trajectory that was read and cannot be stored."""
    return Quarantined(record.window, record.trajectory_id, reason[:300], "", record.content_hash)
