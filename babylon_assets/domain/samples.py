"""What a dataset consists of: samples with and without their texts, and what they come to.

How samples are made of records is in `domain.datasets`; how they become bytes and an id, in `domain.dataset_codec`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from babylon_assets.domain.trajectories import Message, ToolCall

TrainsAs = Literal["policy_gradient", "recompute", "sft", "skip"]
#: Reward, state and components of a step; None where a number is not known.
StepScore = tuple[float | None, str, dict[str, float | None]]
#: By trajectory id and step.
StepScores = Mapping[tuple[str, int], StepScore]


class SamplePlace(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Which call a `Sample` is."""

    sample_id: str
    window: str
    trajectory_id: str
    agent_id: str
    step: int
    call: int


class SampleHead(SamplePlace, frozen=True, gc=False, array_like=True):
    """A `Sample` without its texts: what is decided about it and counted of it."""

    group: str
    model: str
    policy: str | None
    policy_step: int | None
    prompt_token_ids: list[int] | None
    token_ids: list[int] | None
    logprobs: list[float] | None
    reward: float | None
    components: dict[str, float | None]
    advantage: float | None
    trains_as: TrainsAs
    skip_reason: str | None
    tokens: int


class Sample(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One answer of one policy with what it is trained as.

    Attributes:
        sample_id: `<trajectory_id>/<step>/<call>`.
        group: key of the samples whose rewards are compared with this one's.
        policy, policy_step: the behaviour policy when it is one of ours.
        prompt_token_ids, token_ids, logprobs: as recorded when the answer was sampled (logprobs natural,
            temperature 1, one per token of `token_ids`, end of turn included); None when the answer is known
            as text only.
        reward, components: the sample's reward and what it was made of; None while not known.
        advantage: the reward against those of its group; None when it is not compared.
        tokens: length of the answer in tokens; a quarter of its characters when it is known as text only.
        tools, tool_calls, reasoning: as of `trajectories.Exchange`.
    """

    sample_id: str
    window: str
    trajectory_id: str
    agent_id: str
    step: int
    call: int
    group: str
    messages: list[Message]
    response: str
    model: str
    policy: str | None
    policy_step: int | None
    prompt_token_ids: list[int] | None
    token_ids: list[int] | None
    logprobs: list[float] | None
    reward: float | None
    components: dict[str, float | None]
    advantage: float | None
    trains_as: TrainsAs
    skip_reason: str | None
    tokens: int
    tools: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None


class Dataset(msgspec.Struct, frozen=True, gc=False):
    """The samples of one window, ordered by group, then by sample; `id` is the hash of both."""

    id: str
    window: str
    samples: list[Sample]
    counts: dict[str, int]


class DatasetDraft(msgspec.Struct, frozen=True, gc=False):
    """A dataset whose texts were not looked at.

    Attributes:
        samples: as of the `Dataset` with the same id, without their texts.
        content: what `id` is the sha256 of, in parts.
        chats: sha256 of each trajectory's texts, by trajectory id.
        own_chats: those texts that no kept trajectory has: of answers that only their record knows.
        shares: the largest part of the gradient that one agent, one key and one decision point give.
    """

    id: str
    window: str
    samples: list[SampleHead]
    counts: dict[str, int]
    content: list[bytes]
    chats: dict[str, str]
    own_chats: Mapping[str, bytes]
    shares: Mapping[str, float] = {}


class CountedSample(Protocol):
    """What is counted of a sample, with texts or without."""

    @property
    def group(self) -> str: ...
    @property
    def trains_as(self) -> TrainsAs: ...
    @property
    def skip_reason(self) -> str | None: ...
    @property
    def tokens(self) -> int: ...


def explain_use(trains_as: str, skip_reason: str | None) -> str:
    """What a sample is trained as, such as `policy gradient`; of one that is not, why: `skipped: held out`."""
    return f"skipped: {skip_reason}" if skip_reason else trains_as.replace("_", " ")


def count(samples: Iterable[CountedSample]) -> dict[str, int]:
    """Counts for a person: samples by what they train as, skips by reason, groups, tokens."""
    samples = list(samples)
    trained: Sequence[CountedSample] = [sample for sample in samples if sample.trains_as != "skip"]
    counts = {
        "samples": len(samples),
        **dict.fromkeys(("policy_gradient", "recompute", "sft", "skip"), 0),
        "groups": len({sample.group for sample in samples}),
        "trainable_groups": len({sample.group for sample in trained}),
        "trainable_samples": len(trained),
        "trainable_tokens": sum(sample.tokens for sample in trained),
    }
    counts |= Counter(sample.trains_as for sample in samples)
    counts |= Counter(f"skip: {sample.skip_reason}" for sample in samples if sample.skip_reason)
    return dict(sorted(counts.items()))
