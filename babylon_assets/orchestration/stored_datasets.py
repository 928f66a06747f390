"""A look at a dataset as it is kept: is it what its id names, and what was recorded, and nothing more?

Texts are read one trajectory at a time, and decoded only where their hash is not that of what was read of the game, or
where the name of a result stands in them. What follows from the answer is decided in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from babylon_assets.domain import dataset_codec, hindsight, joining
from babylon_assets.domain.hindsight import Faults, Place, Text
from babylon_assets.domain.samples import Sample
from babylon_assets.ledger import datasets, inference_calls, late_samples, trajectories
from babylon_assets.ledger.database import Connection


class DatasetFaults(NamedTuple):
    """What is wrong with a dataset, in words.

    Attributes:
        unstable: texts that are not those which the id names.
        wrong: samples that nobody recorded, or that know a result and are trained on.
        suspicious: all samples whose prompt names a result.
        agents: whose these are, in the same order.
    """

    samples: int
    unstable: list[str]
    wrong: list[str]
    suspicious: list[str]
    agents: list[str]


def look(conn: Connection, window: str, dataset_id: str, result_keys: tuple[str, ...]) -> DatasetFaults:
    """Look at a window's dataset.

    Raises:
        CorruptLedger: it cannot be read, or its content is not what its id names.
    """
    kept, recorded = datasets.load_outline(conn, dataset_id), trajectories.recorded_texts(conn, window)
    seen: set[str] = set()
    unstable, odd = [], []
    for name, chat in datasets.stream_chats(conn, dataset_id):
        seen.add(name)
        digest = sha256(chat).hexdigest()
        if kept.chats.get(name) != digest:
            unstable.append(f"the texts of {name} are not what the dataset's id names")
        elif recorded.get(name) != (digest, kept.places.get(name)) or hindsight.may_name_result(chat, result_keys):
            odd.append(name)
    unstable += [f"the texts of {name} are not kept" for name in sorted(kept.chats.keys() - seen)]
    faults = Faults(["the dataset cannot be read"], [], [])
    if not unstable:
        faults = _faults(conn, window, dataset_id, odd, result_keys)
    return DatasetFaults(sum(map(len, kept.places.values())), unstable, *faults)


def _faults(conn: Connection, window: str, dataset_id: str, odd: Iterable[str], result_keys: tuple[str, ...]) -> Faults:
    """What is wrong with the samples of some trajectories, read in full.

    Samples that the window took of others are compared with these windows' datasets, which were looked at when they
    were made, as long as they can be read: one that holds answers of a forgotten agent was emptied.
    """
    names = sorted(odd)
    if not names:
        return Faults([], [], [])
    samples, sources = _of_dataset(conn, dataset_id, names), late_samples.sources(conn, window)
    if not all(datasets.is_readable(conn, source) for source in sources):
        samples, sources = [sample for sample in samples if sample.window == window], []
    records = [record for record in trajectories.read_heads(conn, window) if record.trajectory_id in names]
    raw: dict[Place, Text] = {
        (sample.trajectory_id, sample.step, sample.call): hindsight.text_of(sample)
        for source in sources
        for sample in _of_dataset(conn, source, names)
    }
    raw |= {
        (record.trajectory_id, sample.step, sample.call): hindsight.text_of(sample)
        for record in records
        for sample in record.samples
    }
    recorded_calls = inference_calls.calls_of(conn, window, joining.named_calls(records))
    calls = frozenset(hindsight.text_of(call) for call in recorded_calls.values())
    return hindsight.faults(samples, raw, calls, result_keys)


def _of_dataset(conn: Connection, dataset_id: str, names: Sequence[str]) -> list[Sample]:
    """The samples that a dataset has of some trajectories."""
    chats = dict(datasets.stream_chats(conn, dataset_id, *names))
    heads = [head for head in datasets.load_heads(conn, dataset_id) if head.trajectory_id in chats]
    return dataset_codec.with_texts(heads, chats.__getitem__)
