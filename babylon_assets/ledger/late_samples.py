"""The table `late_samples`: samples that came, or changed, after their window was trained, and which window takes them.

A row waits until a later window's dataset takes it (`into_window`), in the transaction that keeps the dataset, and is
spent (`checkpoint_id`) in the transaction that keeps the checkpoint trained on it. Who takes what is decided under the
chain's lock here, so that no two windows take the same; a window that the chain passed without training it loses what
it took. Which samples are late is decided in `domain.late_data`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, LiteralString, NamedTuple

from psycopg import Connection

from babylon_assets.domain.late_data import TrainedContent, is_among, late_reason, taught
from babylon_assets.domain.samples import Sample
from babylon_assets.domain.sampling import TOO_OLD
from babylon_assets.ledger.specification import LATE_SAMPLES
from babylon_assets.ledger.waiting import wait_for_transaction_lock

#: The first half of the advisory lock's key; the second is the chain's name.
_LATE_SPACE = 0x6261_6C74
_NOTE: LiteralString = """
INSERT INTO babylon_training.late_samples
    (chain, window_id, sample_id, text_sha256, reward, agent_id, dataset_id)
SELECT %(chain)s, %(window)s, listed.id, listed.text, listed.reward, listed.agent, %(dataset)s
FROM unnest(%(ids)s::text[], %(texts)s::text[], %(rewards)s::float8[], %(agents)s::text[])
    AS listed (id, text, reward, agent)"""
# Only what stands in its window's newest dataset; another window keeps what it took while it may yet be trained.
_AVAILABLE: LiteralString = """
SELECT late.window_id, late.sample_id, late.text_sha256, late.reward, late.dataset_id
FROM babylon_training.late_samples AS late
JOIN babylon_training.windows AS origin ON origin.window_id = late.window_id AND origin.dataset_id = late.dataset_id
LEFT JOIN babylon_training.windows AS taker ON taker.window_id = late.into_window
WHERE late.chain = %(chain)s AND late.checkpoint_id IS NULL AND late.window_id < %(into)s
  AND (late.into_window IS NULL OR late.into_window = %(into)s OR late.into_window <= %(head)s
       OR taker.status IN ('thin', 'skipped'))
ORDER BY late.window_id, late.sample_id"""
_RELEASE: LiteralString = """
UPDATE babylon_training.late_samples SET into_window = NULL
WHERE chain = %s AND into_window = %s AND checkpoint_id IS NULL"""
# Rows by their keys.
_THESE: LiteralString = """
FROM unnest(%(windows)s::text[], %(ids)s::text[], %(texts)s::text[], %(rewards)s::float8[])
    AS listed (window_id, id, text, reward)
WHERE late.chain = %(chain)s AND late.window_id = listed.window_id AND late.sample_id = listed.id
  AND late.text_sha256 = listed.text AND late.reward = listed.reward AND late.checkpoint_id IS NULL"""
_STANDS_IN: LiteralString = f"UPDATE babylon_training.late_samples AS late SET dataset_id = %(dataset)s {_THESE}"
_TAKE: LiteralString = f"UPDATE babylon_training.late_samples AS late SET into_window = %(into)s {_THESE}"
_SPEND: LiteralString = f"""
UPDATE babylon_training.late_samples AS late SET into_window = %(into)s, checkpoint_id = %(checkpoint)s {_THESE}"""
_OPEN: LiteralString = """
SELECT window_id, sample_id, text_sha256, reward, dataset_id FROM babylon_training.late_samples
WHERE chain = %s AND window_id = ANY(%s) AND checkpoint_id IS NULL"""
# What waits is told where it stands in its window's newest dataset; what was taken, always. Only datasets that count
# samples as too old are looked into.
_CARRIED: LiteralString = """
WITH aged AS MATERIALIZED (
    SELECT taker.window_id AS into_window, sample.sample_id
    FROM babylon_training.windows AS taker
    JOIN babylon_training.training_datasets AS made ON made.id = taker.dataset_id
    JOIN babylon_training.training_dataset_samples AS sample ON sample.dataset_id = made.id
    WHERE jsonb_exists(made.counts, 'skip: ' || %(too_old)s::text) AND sample.skip_reason = %(too_old)s
      AND taker.window_id IN (
          SELECT into_window FROM babylon_training.late_samples
          WHERE chain = %(chain)s
            AND (%(window)s::text IS NULL OR window_id = %(window)s OR into_window = %(window)s)))
SELECT late.window_id, late.into_window, count(*)::int, count(aged.sample_id)::int
FROM babylon_training.late_samples AS late
LEFT JOIN babylon_training.windows AS origin USING (window_id)
LEFT JOIN aged ON aged.into_window = late.into_window AND aged.sample_id = late.sample_id
WHERE late.chain = %(chain)s AND (late.into_window IS NOT NULL OR origin.dataset_id = late.dataset_id)
  AND (%(window)s::text IS NULL OR late.window_id = %(window)s OR late.into_window = %(window)s)
GROUP BY 1, 2 ORDER BY 1, 2"""

_FROZEN: LiteralString = """
SELECT made.created_at FROM babylon_training.windows AS hour
JOIN babylon_training.training_datasets AS made ON made.id = hour.dataset_id WHERE hour.window_id = %s"""


class LateSample(NamedTuple):
    """A late sample: its window, its id, what it teaches, and the dataset that it stands in with its group."""

    window: str
    sample_id: str
    teaches: TrainedContent
    dataset_id: str


class CarriedSamples(NamedTuple):
    """So many late samples of a window, and the window that took them; None while they wait.

    Attributes:
        too_old: those of them that are skipped there, because their policy is too far behind.
    """

    window: str
    into: str | None
    samples: int
    too_old: int = 0


def late_lock(conn: Connection[Any], chain: str) -> None:
    """Wait for the right to say which window takes a chain's late samples; it ends with the caller's transaction."""
    wait_for_transaction_lock(conn, (_LATE_SPACE, chain), f"the right to share out the late samples of {chain}")


def note(conn: Connection[Any], chain: str, window: str, dataset_id: str, late: Sequence[Sample]) -> None:
    """Note what is late of a window, in its new dataset; what was noted before and is late no more is not taken."""
    before = _by_sample(_open(conn, chain, [window]))
    again = [
        row
        for sample in late
        for row in before.get((window, sample.sample_id), ())
        if is_among(taught(sample), [row.teaches])
    ]
    known = {row.sample_id for row in again}
    conn.execute(_STANDS_IN, {"chain": chain, "dataset": dataset_id, **_listed(again)})
    fresh = [LateSample(window, sample.sample_id, taught(sample), dataset_id) for sample in late]
    agents = {sample.sample_id: sample.agent_id for sample in late}
    added = [row for row in fresh if row.sample_id not in known]
    names = {"agents": [agents[row.sample_id] for row in added], **_listed(added)}
    conn.execute(_NOTE, {"chain": chain, "window": window, "dataset": dataset_id, **names})


def spent(conn: Connection[Any], chain: str, window: str) -> dict[str, list[TrainedContent]]:
    """What checkpoints were taught by a window's late samples, by sample."""
    query = LATE_SAMPLES.select(
        "WHERE chain = %s AND window_id = %s AND checkpoint_id IS NOT NULL", "sample_id", "text_sha256", "reward"
    )
    known: dict[str, list[TrainedContent]] = defaultdict(list)
    for name, text, reward in conn.execute(query, [chain, window]):
        known[name].append(TrainedContent(text, reward))
    return known


def any_open(conn: Connection[Any], chain: str) -> bool:
    """Whether the chain has late samples that were not trained on yet."""
    query = LATE_SAMPLES.select("WHERE chain = %s AND checkpoint_id IS NULL LIMIT 1", "sample_id")
    return conn.execute(query, [chain]).fetchone() is not None


def available(conn: Connection[Any], chain: str, into: str, head: str | None) -> list[LateSample]:
    """What a window may take of the windows before it: what waits, what it took, what others took in vain.

    Args:
        head: the window of the chain's head; a window up to it is not trained any more.
    """
    rows = conn.execute(_AVAILABLE, {"chain": chain, "into": into, "head": head or ""}).fetchall()
    return [_late(row) for row in rows]


def take(conn: Connection[Any], chain: str, into: str, late: Iterable[LateSample]) -> None:
    """Have a window's dataset take these, and nothing else, in the transaction that keeps the dataset."""
    conn.execute(_RELEASE, [chain, into])
    conn.execute(_TAKE, {"chain": chain, "into": into, **_listed(late)})


def spend(conn: Connection[Any], chain: str, into: str, checkpoint_id: str, trained: Iterable[Sample]) -> None:
    """Note that a checkpoint was trained on these samples of other windows, in the transaction that keeps it."""
    samples = {(sample.window, sample.sample_id): taught(sample) for sample in trained}
    rows = _open(conn, chain, sorted({window for window, _ in samples})) if samples else []
    done = [row for row in rows if is_among(row.teaches, _as_list(samples.get((row.window, row.sample_id))))]
    conn.execute(_SPEND, {"chain": chain, "into": into, "checkpoint": checkpoint_id, **_listed(done)})


def _as_list(known: TrainedContent | None) -> list[TrainedContent]:
    return [] if known is None else [known]


def _open(conn: Connection[Any], chain: str, windows: Sequence[str]) -> list[LateSample]:
    """What no checkpoint was trained on yet."""
    return [_late(row) for row in conn.execute(_OPEN, [chain, windows]).fetchall()]


def _late(row: tuple[Any, ...]) -> LateSample:
    window, name, text, reward, dataset = row
    return LateSample(window, name, TrainedContent(text, reward), dataset)


def _by_sample(rows: Iterable[LateSample]) -> dict[tuple[str, str], list[LateSample]]:
    samples: dict[tuple[str, str], list[LateSample]] = defaultdict(list)
    for row in rows:
        samples[row.window, row.sample_id].append(row)
    return samples


def carried(conn: Connection[Any], chain: str, window: str | None = None) -> list[CarriedSamples]:
    """What became of late samples: of all windows, or of those that a window has given or taken."""
    rows = conn.execute(_CARRIED, {"chain": chain, "window": window, "too_old": TOO_OLD}).fetchall()
    return [CarriedSamples(*row) for row in rows]


def reason_of(conn: Connection[Any], chain: str, window: str) -> str:
    """What is said of a trained window whose data changed, and of what became of its late samples."""
    given = [carry for carry in carried(conn, chain, window) if carry.window == window]
    taken = {carry.into: carry.samples for carry in given if carry.into is not None}
    waiting = sum(carry.samples for carry in given if carry.into is None)
    frozen = conn.execute(_FROZEN, [window]).fetchone()
    return late_reason(window, taken, waiting, frozen[0] if frozen else None)


def sources(conn: Connection[Any], into: str) -> list[str]:
    """The datasets in which the samples that a window took stand as their own window's."""
    query = LATE_SAMPLES.select("WHERE into_window = %s GROUP BY dataset_id ORDER BY dataset_id", "dataset_id")
    return [row[0] for row in conn.execute(query, [into])]


def _listed(late: Iterable[LateSample]) -> dict[str, list[Any]]:
    """The keys of rows, a list each."""
    rows = list(late)
    return {
        "windows": [row.window for row in rows],
        "ids": [row.sample_id for row in rows],
        "texts": [row.teaches.text for row in rows],
        "rewards": [row.teaches.reward for row in rows],
    }
