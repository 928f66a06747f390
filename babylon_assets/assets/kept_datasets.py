"""A look at a dataset as it is kept: is it what its id names, and what was recorded, and nothing more?

Texts are read one trajectory at a time, and decoded only where their hash is not that of what was read of the game, or
where the name of a result stands in them. What follows from the answer is decided in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from babylon_assets.core import frozen, hindsight, joining
from babylon_assets.core.frozen import Frozen
from babylon_assets.core.hindsight import Place, Text
from babylon_assets.core.trajectories import kept as as_kept
from babylon_assets.store import calls, datasets, trajectories
from babylon_assets.store.database import Connection


class Findings(NamedTuple):
    """Texts that are not those which the id names, and samples that nobody recorded or that know a result, in words."""

    samples: int
    unstable: list[str]
    wrong: list[str]


def look(conn: Connection, window: str, dataset_id: str) -> Findings:
    """Look at a window's dataset.

    Raises:
        CorruptLedger: it cannot be read, or its content is not what its id names.
    """
    kept = datasets.load_heads(conn, dataset_id)
    recorded, places, read = trajectories.chat_hashes(conn, window), frozen.places(kept.samples), _places(conn, window)
    seen: set[str] = set()
    unstable, odd = [], []
    for name, chat in datasets.stream_chats(conn, dataset_id):
        seen.add(name)
        digest = sha256(chat).hexdigest()
        if kept.chats.get(name) != digest:
            unstable.append(f"the texts of {name} are not what the dataset's id names")
        elif recorded.get(name) != digest or places.get(name) != read[name] or hindsight.may_name_result(chat):
            odd.append(name)
    unstable += [f"the texts of {name} are not kept" for name in sorted(kept.chats.keys() - seen)]
    wrong = ["the dataset cannot be read"] if unstable else _faults(conn, window, dataset_id, kept, odd)
    return Findings(len(kept.samples), unstable, wrong)


def _places(conn: Connection, window: str) -> dict[str, list[tuple[int, int]]]:
    """Step and call of each answer that was read of the game, by trajectory, in the order of its texts."""
    records = trajectories.read_heads(conn, window)
    return {
        record.trajectory_id: [(head.step, head.call) for head in as_kept(record.samples).heads] for record in records
    }


def _faults(conn: Connection, window: str, dataset_id: str, kept: Frozen, odd: Iterable[str]) -> list[str]:
    """What is wrong with the samples of some trajectories, read in full."""
    names = sorted(odd)
    if not names:
        return []
    chats = dict(datasets.stream_chats(conn, dataset_id, *names))
    samples = frozen.with_texts([head for head in kept.samples if head.trajectory_id in chats], chats.__getitem__)
    records = trajectories.read_heads(conn, window)
    raw: dict[Place, Text] = {
        (record.trajectory_id, sample.step, sample.call): hindsight.text_of(sample)
        for record in records
        if record.trajectory_id in chats
        for sample in record.samples
    }
    found = calls.calls_of(conn, window, joining.named_calls(records))
    return hindsight.faults(samples, raw, frozenset(hindsight.text_of(call) for call in found.values()))
