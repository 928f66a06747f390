"""Samples of the windows' datasets, searched a page at a time: what SQL can tell apart is told apart there.

The search goes from the newest window to older ones, a few windows at a time, and can be taken up where it stopped: a
page costs what it looks at, however long the record is. Texts are kept compressed; they are read for the samples that
are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, LiteralString, NamedTuple

import msgspec
from psycopg import Connection
from psycopg.rows import class_row

from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.grouping import window_in
from babylon_assets.domain.trajectories import Exchange, StepFacts, decode_chat
from babylon_assets.ledger import datasets
from babylon_assets.ledger.compression import unpack
from babylon_assets.ledger.trajectory_bodies import decode_body

#: Windows that one question to the database covers: the first is asked alone, and then twice as many each time.
MOST_WINDOWS = 32
#: Samples of a group that are read beside one of them.
MOST_NEIGHBOURS = 40
#: Later than every window.
_NEWEST = "9999"

_COLUMNS: LiteralString = """
    sample.dataset_id, sample.sample_id, sample.trajectory_id, sample.agent_id, sample.step, sample.call,
    sample.group_key, sample.policy, sample.reward, sample.advantage, sample.trains_as, sample.skip_reason,
    sample.tokens"""
# LIMIT 1: each window is looked up for itself, however many there are.
_WINDOWS: LiteralString = """
SELECT window_id, (
    SELECT coalesce(sum(cardinality(kept.steps)), 0)::int FROM babylon_training.training_dataset_trajectories AS kept
    WHERE kept.dataset_id = played.dataset_id AND (%(agent)s::text IS NULL OR kept.agent_id = %(agent)s))
FROM babylon_training.windows AS played
WHERE dataset_id IS NOT NULL AND (window_id < %(until)s OR (window_id = %(until)s AND NOT %(past)s))
    AND (%(only)s::text IS NULL OR window_id = %(only)s)
    AND (%(agent)s::text IS NULL OR (
        SELECT true FROM babylon_training.training_dataset_trajectories AS kept
        WHERE kept.dataset_id = played.dataset_id AND kept.agent_id = %(agent)s LIMIT 1))
ORDER BY window_id DESC LIMIT %(windows)s"""
_KNOWN_AGENT: LiteralString = """
SELECT true FROM babylon_training.training_dataset_trajectories WHERE agent_id = %s LIMIT 1"""
_SEARCH: LiteralString = f"""
SELECT played.window_id AS window, {_COLUMNS}
FROM babylon_training.windows AS played JOIN babylon_training.training_dataset_samples AS sample USING (dataset_id)
WHERE played.window_id = ANY(%(picked)s)
    AND (%(agent)s::text IS NULL OR sample.agent_id = %(agent)s)
    AND (%(policy)s::text IS NULL OR sample.policy = %(policy)s)
    AND (%(mode)s::text IS NULL OR sample.trains_as = %(mode)s)
    AND (%(reason)s::text IS NULL OR sample.skip_reason = %(reason)s)
    AND (%(least)s::float8 IS NULL OR sample.reward >= %(least)s)
    AND (%(most)s::float8 IS NULL OR sample.reward <= %(most)s)
    AND (played.window_id < %(until)s
        OR (sample.trajectory_id, sample.step, sample.call) > (%(trajectory_id)s, %(step)s, %(call)s))
ORDER BY played.window_id DESC, sample.trajectory_id, sample.step, sample.call LIMIT %(limit)s"""
_SAMPLE: LiteralString = f"""
SELECT played.window_id AS window, {_COLUMNS}
FROM babylon_training.windows AS played JOIN babylon_training.training_dataset_samples AS sample USING (dataset_id)
WHERE played.window_id = %s AND sample.trajectory_id = %s AND sample.sample_id = %s"""
_STEP_OF_AGENT: LiteralString = f"""
SELECT played.window_id AS window, {_COLUMNS}
FROM babylon_training.windows AS played JOIN babylon_training.training_dataset_samples AS sample USING (dataset_id)
CROSS JOIN split_part(sample.group_key, '/', 1) AS own
WHERE played.window_id = ANY(%s) AND sample.agent_id = %s AND sample.step = %s AND (%s::text IS NULL OR own = %s)
ORDER BY own DESC, played.window_id = own DESC, played.window_id DESC, sample.trajectory_id, sample.call DESC
LIMIT 1"""
_CARRIERS: LiteralString = """
SELECT DISTINCT into_window FROM babylon_training.late_samples
WHERE window_id = %s AND agent_id = %s AND into_window IS NOT NULL"""
_NEIGHBOURS: LiteralString = f"""
SELECT %s::text AS window, {_COLUMNS} FROM babylon_training.training_dataset_samples AS sample
WHERE sample.dataset_id = %s AND sample.group_key = %s
ORDER BY sample.reward DESC NULLS LAST, sample.sample_id LIMIT %s"""
_OF_AGENT: LiteralString = f"""
SELECT played.window_id AS window, {_COLUMNS}
FROM babylon_training.windows AS played JOIN babylon_training.training_dataset_samples AS sample USING (dataset_id)
WHERE played.window_id = ANY(%s) AND sample.agent_id = %s AND sample.reward IS NOT NULL
ORDER BY sample.reward"""
_TEXTS: LiteralString = """
SELECT kept.dataset_id, kept.trajectory_id, kept.steps, kept.calls, coalesce(kept.chat, raw.chat), kept.chat_sha256
FROM unnest(%s::text[], %s::text[]) AS wanted (dataset_id, trajectory_id)
JOIN babylon_training.training_dataset_trajectories AS kept USING (dataset_id, trajectory_id)
JOIN babylon_training.training_datasets AS frozen ON frozen.id = kept.dataset_id
LEFT JOIN babylon_training.raw_trajectories AS raw
    ON kept.chat IS NULL AND raw.window_id = frozen.window_id
    AND raw.trajectory_id = kept.trajectory_id AND raw.chat_sha256 = kept.chat_sha256"""
_STEPS: LiteralString = """
SELECT trajectory_id, body FROM babylon_training.raw_trajectories
WHERE trajectory_id = ANY(%s) ORDER BY window_id"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """A sample without its texts.

    Attributes:
        window: whose newest dataset holds it; a late sample's own window is an earlier one.
    """

    window: str
    dataset_id: str
    sample_id: str
    trajectory_id: str
    agent_id: str
    step: int
    call: int
    group_key: str
    policy: str | None
    reward: float | None
    advantage: float | None
    trains_as: str
    skip_reason: str | None
    tokens: int

    @property
    def own_window(self) -> str:
        """The window in which it was answered."""
        return window_in(self.group_key)

    @property
    def baseline(self) -> float | None:
        """What the reward is compared with; None for a sample that is not compared."""
        return None if self.reward is None or self.advantage is None else self.reward - self.advantage


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """Which samples are looked for; None: any."""

    window: str | None = None
    agent: str | None = None
    policy: str | None = None
    mode: str | None = None
    reason: str | None = None
    least: float | None = None
    most: float | None = None


class SamplePosition(NamedTuple):
    """Where a search stands: it goes on after this sample, in the order of windows, newest first; or past a window."""

    window: str
    trajectory_id: str = ""
    step: int = -1
    call: int = -1
    past: bool = False


class SampleBatch(NamedTuple):
    """Samples that a search came upon, maybe none, from where it goes on, and how many were compared for them."""

    rows: list[SampleRow]
    position: SamplePosition
    compared: int


def stream_samples(
    conn: Connection[Any], wanted: SampleFilter, after: SamplePosition | None = None, limit: int = 200
) -> Iterator[SampleBatch]:
    """The samples from the newest window to the oldest, in batches of at most `limit`; whoever has enough stops."""
    if wanted.agent is not None and conn.execute(_KNOWN_AGENT, [wanted.agent]).fetchone() is None:
        return
    position, windows = after or SamplePosition(wanted.window or _NEWEST), 1
    own = {item.name: getattr(wanted, item.name) for item in fields(wanted)}
    while True:
        given = {**own, **position._asdict(), "until": position.window, "only": wanted.window, "windows": windows}
        picked = dict(conn.execute(_WINDOWS, given).fetchall())
        if not picked:
            return
        with conn.cursor(row_factory=class_row(SampleRow)) as cursor:
            rows = cursor.execute(_SEARCH, {**given, "picked": list(picked), "limit": limit}).fetchall()
        if len(rows) == limit:
            last, compared = rows[-1], limit
            position = SamplePosition(last.window, last.trajectory_id, last.step, last.call)
        else:
            compared, windows = sum(picked.values()), min(2 * windows, MOST_WINDOWS)
            position = SamplePosition(list(picked)[-1], past=True)
        yield SampleBatch(rows, position, compared)


def read_sample(conn: Connection[Any], window: str, sample_id: str) -> SampleRow | None:
    """One sample of a window's newest dataset, or None."""
    trajectory = sample_id.rsplit("/", 2)[0]
    with conn.cursor(row_factory=class_row(SampleRow)) as cursor:
        return cursor.execute(_SAMPLE, [window, trajectory, sample_id]).fetchone()


def find_sample_of(conn: Connection[Any], agent: str, step: int, window: str | None = None) -> SampleRow | None:
    """The executed call of an agent's step, answered in a window or in its newest one; None where there is none.

    A sample that a later window's dataset carries over is of the window in which it was answered.
    """
    if window is not None:
        carriers = [name for (name,) in conn.execute(_CARRIERS, [window, agent])]
        return _step_in(conn, [window, *carriers], agent, step, window)
    newest: SampleRow | None = None
    for names in _windows_of_agent(conn, agent):
        if newest is not None and newest.own_window > names[0]:
            break  # older windows hold older samples
        row = _step_in(conn, names, agent, step)
        if row is not None and (newest is None or row.own_window >= newest.own_window):
            newest = row
    return newest


def _step_in(
    conn: Connection[Any], windows: Sequence[str], agent: str, step: int, own: str | None = None
) -> SampleRow | None:
    """The newest executed call of an agent's step in the datasets of some windows."""
    with conn.cursor(row_factory=class_row(SampleRow)) as cursor:
        return cursor.execute(_STEP_OF_AGENT, [list(windows), agent, step, own, own]).fetchone()


def _windows_of_agent(conn: Connection[Any], agent: str) -> Iterator[list[str]]:
    """The windows whose datasets hold the agent, newest first, ever more at a time."""
    given: dict[str, Any] = {"until": _NEWEST, "past": False, "only": None, "agent": agent, "windows": 4}
    while names := [name for name, _ in conn.execute(_WINDOWS, given)]:
        yield names
        given |= {"until": names[-1], "past": True, "windows": 2 * given["windows"]}


def read_neighbours(conn: Connection[Any], sample: SampleRow, most: int = MOST_NEIGHBOURS) -> list[SampleRow]:
    """The samples of a sample's group, itself among them, the best rewarded first."""
    given = [sample.window, sample.dataset_id, sample.group_key, most]
    with conn.cursor(row_factory=class_row(SampleRow)) as cursor:
        return cursor.execute(_NEIGHBOURS, given).fetchall()


def samples_of_agent(conn: Connection[Any], agent: str, windows: Sequence[str]) -> list[SampleRow]:
    """An agent's samples of some windows whose reward is known, the worst first."""
    with conn.cursor(row_factory=class_row(SampleRow)) as cursor:
        return cursor.execute(_OF_AGENT, [list(windows), agent]).fetchall()


def read_text(conn: Connection[Any], row: SampleRow) -> Exchange | None:
    """The conversation and the answer of one sample; None where they are not kept any more."""
    return read_texts(conn, [row]).get((row.dataset_id, row.sample_id))


def read_texts(conn: Connection[Any], rows: Iterable[SampleRow]) -> dict[tuple[str, str], Exchange]:
    """The conversation and the answer of each sample, by dataset and sample id; without those not kept any more.

    One question to the database, whatever the number of datasets, but for each dataset of the first form.
    """
    wanted = {(row.dataset_id, row.sample_id): (row.dataset_id, row.trajectory_id) for row in rows}
    if not wanted:
        return {}
    texts: dict[tuple[str, str], Exchange] = {}
    in_first_form = set()
    places = [list(names) for names in zip(*set(wanted.values()), strict=True)]
    with conn.cursor(binary=True) as cursor:
        for dataset, trajectory, *kept, digest in cursor.stream(_TEXTS, places):
            if digest is None:
                in_first_form.add(dataset)
            named = (((dataset, f"{trajectory}/{place}"), text) for place, text in _decode_texts(*kept))
            texts |= {name: text for name, text in named if name in wanted}
    for dataset in in_first_form:
        texts |= {name: text for name, text in _texts_of_first_form(conn, dataset).items() if name in wanted}
    return {name: texts[name] for name in wanted if name in texts}


def _decode_texts(steps: Sequence[int], calls: Sequence[int], chat: bytes | None) -> Iterator[tuple[str, Exchange]]:
    """The texts of a trajectory by `step/call`; none of one that is damaged, or whose agent was forgotten."""
    try:
        exchanges = decode_chat(unpack(chat or b""))
    except (ValueError, msgspec.MsgspecError):
        return
    for (step, call), exchange in zip(sorted(zip(steps, calls, strict=True)), exchanges, strict=False):
        yield f"{step}/{call}", exchange


def _texts_of_first_form(conn: Connection[Any], dataset: str) -> dict[tuple[str, str], Exchange]:
    """The texts of a dataset that holds them itself; none of one that is damaged, or was emptied."""
    try:
        samples = datasets.load_dataset(conn, dataset).samples
    except CorruptLedger:
        return {}
    return {(dataset, sample.sample_id): Exchange(sample.messages, sample.response) for sample in samples}


def read_steps_of(conn: Connection[Any], trajectories: Iterable[str]) -> dict[tuple[str, int], StepFacts]:
    """The facts of the steps of some trajectories, by trajectory id and step, from the newest window of each.

    A trajectory that is damaged, or is not kept any more, has none.
    """
    with conn.cursor(binary=True) as cursor:
        bodies: dict[str, bytes] = dict(cursor.execute(_STEPS, [sorted(set(trajectories))]).fetchall())
    facts: dict[tuple[str, int], StepFacts] = {}
    for name, body in bodies.items():
        try:
            facts |= {(name, fact.step): fact for fact in decode_body(body).facts}
        except (ValueError, msgspec.MsgspecError):
            continue
    return facts
