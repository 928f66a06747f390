"""Late samples: what a window that was trained before has to teach since its data changed.

A sample of the window's new dataset is late when it may be trained on, and its text was not, or with another reward: a
row that came after training, an outcome that is known by now, a market that was resolved the other way. One whose
reward hardly moved, or whose advantage did because others joined its group, is not: its answer was trained once, which
is enough. Where late samples wait and which window takes them is in `ledger.late_samples`; how they are compared when
they are trained, in `training.selection`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.samples import Dataset, Sample
from babylon_assets.domain.sampling import TOO_OLD

#: A reward that moved by less is what was trained: one more outcome moves the heuristic of all of its agent's hour,
#: and so these rewards by up to 0.1 with its usual weight. From the worst trade to the best it is 2.
SMALLEST_CHANGE = 0.1


class TrainedContent(NamedTuple):
    """What a sample teaches: the sha256 of its conversation and its answer, and its reward."""

    text: str
    reward: float


def taught(sample: Sample) -> TrainedContent:
    """What a sample with a known reward teaches."""
    texts: list[Any] = [sample.messages, sample.response]
    if sample.tools or sample.tool_calls or sample.reasoning:
        texts += [sample.tools, sample.tool_calls, sample.reasoning]
    return TrainedContent(content_id(texts), sample.reward or 0.0)


def is_among(content: TrainedContent, others: Iterable[TrainedContent]) -> bool:
    """Whether the same text was taught with about the same reward."""
    return any(content.text == other.text and abs(content.reward - other.reward) <= SMALLEST_CHANGE for other in others)


def trained_samples(dataset: Dataset) -> dict[str, list[TrainedContent]]:
    """What a dataset has for training of its own window, by sample."""
    known: dict[str, list[TrainedContent]] = defaultdict(list)
    for sample in dataset.samples:
        if sample.window == dataset.window and sample.trains_as != "skip":
            known[sample.sample_id].append(taught(sample))
    return known


def trained_with(rebuilt: Dataset, rewards: Mapping[str, float]) -> dict[str, list[TrainedContent]]:
    """As `trained_samples`, of a dataset whose texts are gone: the same sample counts as the same text.

    Args:
        rebuilt: the window's new dataset.
        rewards: that its samples were trained with, by sample.
    """
    return {
        sample.sample_id: [taught(sample)._replace(reward=rewards[sample.sample_id])]
        for sample in rebuilt.samples
        if sample.window == rebuilt.window and sample.sample_id in rewards
    }


def late_samples(rebuilt: Dataset, trained: Mapping[str, Iterable[TrainedContent]]) -> list[Sample]:
    """The samples of a window's new dataset that are late, in the dataset's order.

    Args:
        trained: what checkpoints of the chain were taught of the window, by sample.
    """
    own = (sample for sample in rebuilt.samples if sample.window == rebuilt.window and sample.trains_as != "skip")
    return [sample for sample in own if not is_among(taught(sample), trained.get(sample.sample_id, ()))]


def carried(dataset: Dataset) -> list[Sample]:
    """The samples of a dataset that are of another window than its own."""
    return [sample for sample in dataset.samples if sample.window != dataset.window]


def aged(sample: Sample, head_step: int, max_policy_lag: int) -> Sample:
    """A late sample as it joins a later window: one whose policy is too far behind the head by now is skipped."""
    if sample.policy_step is None or head_step - sample.policy_step <= max_policy_lag:
        return sample
    return msgspec.structs.replace(sample, trains_as="skip", skip_reason=TOO_OLD)


#: How the reason of a trained window begins whose data changed.
CHANGED = "its data changed after training"


def beside(window: str) -> str:
    """What can be done about a window that the chain has passed."""
    return f"the chain stays as it is, `babylon train {window} --branch` trains beside it"


def late_reason(
    window: str, taken: Mapping[str, int] | None = None, waiting: int = 0, changed_at: datetime | None = None
) -> str:
    """What is to be said of a trained window whose data changed.

    Args:
        taken: how many of its late samples were carried into which window.
        waiting: how many no window has taken yet.
        changed_at: when its new dataset was frozen, where that is known.
    """
    carried_into = [f"{_samples(number)} carried into {into}" for into, number in (taken or {}).items()]
    waits = [f"{_samples(waiting)} wait{'s' if waiting == 1 else ''} for the next training"] if waiting else []
    changed = f"{CHANGED}, on {changed_at.astimezone(UTC):%Y-%m-%d at %H:%M} UTC" if changed_at else CHANGED
    return "; ".join([changed, *carried_into, *waits, beside(window)])


def _samples(number: int) -> str:
    return f"{number:,} late sample{'' if number == 1 else 's'}"
