"""Late data of a trained window: which of its samples the next window's dataset takes, and what both say of it.

With LATE_DATA=carry, what a trained window has to teach since its data changed joins the dataset of the next window
that is frozen and trained, once. All of it happens in the transaction that keeps a dataset, under the chain's lock for
late samples, so that a killed run carries nothing twice and loses nothing. What is late is decided in
`domain.late_data`, and kept in `ledger.late_samples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from babylon_assets.config.settings import Settings
from babylon_assets.domain import late_data as rules
from babylon_assets.domain.samples import DatasetDraft, Sample
from babylon_assets.ledger import checkpoints, datasets, windows
from babylon_assets.ledger import late_samples as ledger
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.late_samples import LateSample
from babylon_assets.orchestration.metadata import numbers, tally
from babylon_assets.training.backends.registry import select_backend


@dataclass(frozen=True)
class CarryOver:
    """How a window stands to late data while its dataset is frozen.

    Attributes:
        own: the chain's checkpoint of it; None for one that was not trained.
        samples: of other windows, which join its dataset.
        offered: what of the windows before it may be taken, these samples among it.
    """

    own: Checkpoint | None
    samples: Sequence[Sample] = ()
    offered: Mapping[tuple[str, str], LateSample] = field(default_factory=dict)


def plan_carry_over(conn: Connection, settings: Settings, window: str, *, teaches: bool) -> CarryOver:
    """What joins a window's dataset: what it was trained on, or what may be taken now, which no one else then can.

    Args:
        teaches: whether the window is to be trained on samples of its own; one that is not takes none.
    """
    chain = settings.model_name
    own = checkpoints.by_window(conn, chain, window)
    if own is not None:
        ledger.late_lock(conn, chain)
        return CarryOver(own, _trained_with(conn, own))
    if not ledger.any_open(conn, chain):
        return CarryOver(None)
    ledger.late_lock(conn, chain)
    head = checkpoints.head(conn, chain)
    passed = head is not None and head.window_id is not None and head.window_id > window
    offered = ledger.available(conn, chain, window, head.window_id if head else None)
    carries = (
        settings.automation.late_data == "carry" and select_backend(settings).backend.capabilities.carries_late_samples
    )
    if not teaches or passed or not carries:
        return CarryOver(None, (), {(offer.window, offer.sample_id): offer for offer in offered})
    steps = head.step if head else 0
    samples = [rules.aged(sample, steps, settings.training.max_policy_lag) for sample in _samples(conn, offered)]
    return CarryOver(None, samples, {(offer.window, offer.sample_id): offer for offer in offered})


def samples_taken(conn: Connection, chain: str, window: str) -> list[Sample]:
    """The samples of other windows that the chain's checkpoint of a window was trained on."""
    own = checkpoints.by_window(conn, chain, window)
    return [] if own is None else _trained_with(conn, own)


def _trained_with(conn: Connection, own: Checkpoint) -> list[Sample]:
    """The samples of other windows that a trained window's checkpoint was trained on: they stay in its dataset."""
    took = own.dataset_id is not None and ledger.sources(conn, own.window_id or "")
    if own.dataset_id is None or not took or not datasets.is_readable(conn, own.dataset_id):
        return []
    return rules.carried(datasets.load_dataset(conn, own.dataset_id))


def _samples(conn: Connection, offered: Iterable[LateSample]) -> list[Sample]:
    """The offered samples as they stand in their windows' datasets."""
    trajectories: dict[str, set[str]] = {}
    for offer in offered:
        trajectories.setdefault(offer.dataset_id, set()).add(offer.sample_id)
    return [
        sample
        for dataset_id, names in trajectories.items()
        for sample in datasets.load_dataset(conn, dataset_id).samples
        if sample.sample_id in names
    ]


def keep(conn: Connection, settings: Settings, dataset: DatasetDraft, stands: CarryOver) -> None:
    """Note what is late of a trained window, or what the dataset of another took; the dataset is kept already."""
    if stands.own is not None:
        _note_late(conn, settings, dataset, stands.own)
    elif stands.offered:
        inside = ((sample.window, sample.sample_id) for sample in dataset.samples)
        ledger.take(
            conn, settings.model_name, dataset.window, [stands.offered[key] for key in inside if key in stands.offered]
        )
        for window in sorted({window for window, _ in stands.offered}):
            _tell(conn, settings.model_name, window)


def _note_late(conn: Connection, settings: Settings, dataset: DatasetDraft, own: Checkpoint) -> None:
    if settings.automation.late_data != "carry" or own.dataset_id is None or own.dataset_id == dataset.id:
        return
    chain, window = settings.model_name, dataset.window
    rebuilt = datasets.load_dataset(conn, dataset.id)
    if datasets.is_readable(conn, own.dataset_id):
        trained = rules.trained_samples(datasets.load_dataset(conn, own.dataset_id))
    else:  # it held answers of a forgotten agent: of the others, the rewards are known and no texts
        trained = rules.trained_with(rebuilt, datasets.trained_rewards(conn, own.dataset_id))
    for name, more in ledger.spent(conn, chain, window).items():
        trained.setdefault(name, []).extend(more)
    ledger.note(conn, chain, window, dataset.id, rules.late_samples(rebuilt, trained))


def _tell(conn: Connection, chain: str, window: str) -> None:
    """Have a window that gave samples say so, unless it does."""
    row, reason = windows.get_window(conn, window), ledger.reason_of(conn, chain, window)
    if row is not None and row.reason != reason:
        windows.upsert_window(conn, window, reason=reason)


def metadata(conn: Connection, settings: Settings, window: str) -> dict[str, dg.MetadataValue[Any]]:
    """What a window's dataset took of others; what others took of it is in the window's reason."""
    taken = [carry for carry in ledger.carried(conn, settings.model_name, window) if carry.into == window]
    old = sum(carry.too_old for carry in taken)
    return {
        **({"carried_from": tally({carry.window: carry.samples for carry in taken})} if taken else {}),
        **numbers({"carried_too_old": old} if old else {}),
    }


def givers(conn: Connection, settings: Settings, window: str) -> list[str]:
    """The windows whose late samples a window's dataset took."""
    return [carry.window for carry in ledger.carried(conn, settings.model_name, window) if carry.into == window]
