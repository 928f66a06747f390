"""Training datasets: which answers of a window are trained on, how, and against which others.

A dataset is a value: the same records, calls and rewards give the same samples in the same order and the same
id. How it is trained on is the business of `training`; where it is kept, of `store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from babylon_assets.core.errors import CorruptLedger
from babylon_assets.core.grouping import GroupMode, advantages, group_key, spreads
from babylon_assets.core.joining import JoinedSample, RecordedCall, join_calls
from babylon_assets.core.lineage import canonical_json, content_sha256
from babylon_assets.core.policies import policy_step
from babylon_assets.core.sampling import HELD_OUT, bounded, is_held_out
from babylon_assets.core.trajectories import Message, RawSample, TrajectoryRecord

TrainsAs = Literal["policy_gradient", "recompute", "imitate", "skip"]

NOT_YET_KNOWN = "outcome not yet known"
NEVER_KNOWN = "outcome cannot be known"
NOT_SCORED = "step has no score"
NO_SPREAD = "group has no spread"
ALONE = "group has one sample"
WORSE_HALF = "worse half of its group"
TOO_OLD = "policy is too old"
#: Rewards of a group that differ by less than this have no spread.
SMALLEST_SPREAD = 1e-9
_CHARACTERS_PER_TOKEN = 4


class Sample(msgspec.Struct, frozen=True, gc=False):
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


class Dataset(msgspec.Struct, frozen=True, gc=False):
    """The samples of one window, ordered by group, then by sample; `id` is the hash of both."""

    id: str
    window: str
    samples: list[Sample]
    counts: dict[str, int]


def build_dataset(
    window: str,
    records: Iterable[TrajectoryRecord],
    calls: Mapping[str, RecordedCall],
    scores: pd.DataFrame,
    model_name: str,
    *,
    moment_seconds: float = 30,
    group_mode: GroupMode = "moment",
    head_step: int | None = None,
    max_policy_lag: int | None = None,
    held_out_share: float = 0.0,
    max_samples: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Build the dataset of a window.

    Each sample gets the reward of its step and is compared with those of its group that are of its kind: answers of
    our own policies among each other, other models' answers among each other. Of the latter the better half is
    imitated. What cannot be trained on stays in, as `skip` with the reason.

    Args:
        calls: recorded answers by call id; they know token ids and log-probabilities that the game does not keep, and
            the whole conversation of agents of which it keeps none. `joining.join_calls` says which belong where.
        scores: as of `rewards.score_window`: a row per trajectory_id and step with `reward`, `state` and
            components.
        model_name: the chain's model: `<model_name>@<step>` are our policies.
        head_step, max_policy_lag: an answer of a policy more than `max_policy_lag` steps behind `head_step`
            is skipped.
        held_out_share: samples of this share of the agents, by hash, are scored and kept, but skipped and not compared.
        max_samples, max_tokens, seed: bounds of what is trained on, and what the choice is drawn by.
    """
    joined = join_calls(records, calls)
    drafts = list(_drafts(window, joined.samples, _Scores(scores), model_name, moment_seconds, group_mode))
    drafts.sort(key=lambda draft: (draft.group, draft.trajectory_id, draft.step, draft.call))
    oldest = 0 if head_step is None or max_policy_lag is None else head_step - max_policy_lag
    compared = _compared([_without_old(_without_held_out(draft, held_out_share), oldest) for draft in drafts])
    samples = bounded(compared, max_samples, max_tokens, seed)
    return Dataset(dataset_id(window, samples), window, samples, {**joined.counts, **count(samples)})


def count(samples: Iterable[Sample]) -> dict[str, int]:
    """Counts for a person: samples by what they train as, skips by reason, groups, tokens."""
    samples = list(samples)
    trained = [sample for sample in samples if sample.trains_as != "skip"]
    counts = {
        "samples": len(samples),
        **dict.fromkeys(("policy_gradient", "recompute", "imitate", "skip"), 0),
        "groups": len({sample.group for sample in samples}),
        "trainable_groups": len({sample.group for sample in trained}),
        "trainable_samples": len(trained),
        "trainable_tokens": sum(sample.tokens for sample in trained),
    }
    counts |= Counter(sample.trains_as for sample in samples)
    counts |= Counter(f"skip: {sample.skip_reason}" for sample in samples if sample.skip_reason)
    return dict(sorted(counts.items()))


def dataset_id(window: str, samples: Iterable[Sample]) -> str:
    """The sha256 of the canonical JSON of [window, samples], made sample by sample."""
    return content_sha256(chain([b"[" + canonical_json(window) + b",["], _joined(samples), [b"]]"]))


def encode(dataset: Dataset) -> bytes:
    """The dataset as canonical JSON, from which `decode` restores it exactly."""
    return b"".join(encoded_parts(dataset))


def encoded_parts(dataset: Dataset) -> Iterator[bytes]:
    """`encode` in parts of about a sample, so that no more than one of them is held."""
    head = {"counts": dataset.counts, "id": dataset.id}
    yield canonical_json(head)[:-1] + b',"samples":['
    yield from _joined(dataset.samples)
    yield b'],"window":' + canonical_json(dataset.window) + b"}"


def _joined(samples: Iterable[Sample]) -> Iterator[bytes]:
    for number, sample in enumerate(samples):
        yield b"," + canonical_json(sample) if number else canonical_json(sample)


def decode(content: bytes) -> Dataset:
    """Restore a dataset from `encode`.

    Raises:
        CorruptLedger: the bytes are no dataset, or are not the content that its id names.
    """
    try:
        dataset = msgspec.json.decode(content, type=Dataset)
    except msgspec.MsgspecError as error:
        raise CorruptLedger(f"a dataset cannot be decoded: {error}. Build it again from its window.") from error
    if dataset_id(dataset.window, dataset.samples) != dataset.id:
        raise CorruptLedger(f"the content of dataset {dataset.id} is not what its id names. Build it again.")
    return dataset


class _Score(NamedTuple):
    reward: float | None
    state: str
    components: dict[str, float | None]


class _Scores:
    """The scores of a window by (trajectory id, step)."""

    _NOT_COMPONENTS = frozenset(
        {"window", "trajectory_id", "agent_id", "step", "state", "worth", "reward", "final", "entry", "exit"}
    )

    def __init__(self, frame: pd.DataFrame) -> None:
        names = [str(c) for c in frame.columns if c not in self._NOT_COMPONENTS and frame[c].dtype.kind == "f"]
        values = [_or_none(frame[name]) for name in names]
        states = frame["state"].tolist() if "state" in frame else ["pending"] * len(frame)
        keys = zip(frame["trajectory_id"].tolist(), frame["step"].tolist(), strict=True)
        rows = zip(*values, strict=True) if names else iter([()] * len(frame))
        self._by_step = {
            key: _Score(reward, state, dict(zip(names, row, strict=True)))
            for key, reward, state, row in zip(keys, _or_none(frame["reward"]), states, rows, strict=True)
        }

    def of(self, trajectory_id: str, step: int) -> _Score:
        return self._by_step.get((trajectory_id, step), _Score(None, "unscored", {}))


def _or_none(values: pd.Series[Any]) -> list[float | None]:
    return [value if value == value else None for value in values.astype("float64").tolist()]


def _drafts(
    window: str,
    joined: Iterable[JoinedSample],
    scores: _Scores,
    model_name: str,
    moment_seconds: float,
    mode: GroupMode,
) -> Iterator[Sample]:
    """Samples that know everything but what they are compared with."""
    for _, samples in groupby(joined, key=lambda each: each.record.trajectory_id):
        moments: dict[int, int] = {}
        for record, raw, call in samples:
            moments = moments or {fact.step: fact.moment_ms for fact in record.facts}
            group = group_key(window, moments[raw.step], moment_seconds, mode, record.agent_id)
            score = scores.of(record.trajectory_id, raw.step)
            yield _draft(window, record, raw, call, score, model_name, group)


def _draft(
    window: str,
    record: TrajectoryRecord,
    raw: RawSample,
    call: RecordedCall | None,
    score: _Score,
    model_name: str,
    group: str,
) -> Sample:
    policy = (call.policy if call is not None else None) or raw.model
    behind = policy_step(policy, model_name)
    exact = behind is not None and call is not None and _has_tokens(call)
    trains_as: TrainsAs = "imitate" if behind is None else "policy_gradient" if exact else "recompute"
    skip_reason = None
    if score.reward is None:
        trains_as, skip_reason = "skip", _why_no_reward(score.state)
    return Sample(
        sample_id=f"{record.trajectory_id}/{raw.step}/{raw.call}",
        window=window,
        trajectory_id=record.trajectory_id,
        agent_id=record.agent_id,
        step=raw.step,
        call=raw.call,
        group=group,
        messages=raw.messages,
        response=raw.response,
        model=raw.model,
        policy=None if behind is None else policy,
        policy_step=behind,
        prompt_token_ids=list(call.prompt_token_ids or ()) if exact and call else None,
        token_ids=list(call.token_ids or ()) if exact and call else None,
        logprobs=list(call.logprobs or ()) if exact and call else None,
        reward=score.reward,
        components=score.components,
        advantage=None,
        trains_as=trains_as,
        skip_reason=skip_reason,
        tokens=len(call.token_ids or ()) if exact and call else len(raw.response) // _CHARACTERS_PER_TOKEN,
    )


def _has_tokens(call: RecordedCall) -> bool:
    """Whether the record has a prompt, an answer, and a finite log-probability for each of its tokens."""
    if not call.prompt_token_ids or not call.token_ids or call.logprobs is None:
        return False
    return len(call.logprobs) == len(call.token_ids) and bool(np.isfinite(call.logprobs).all())


def _why_no_reward(state: str) -> str:
    return {"unknown": NEVER_KNOWN, "unscored": NOT_SCORED}.get(state, NOT_YET_KNOWN)


def _without_held_out(sample: Sample, share: float) -> Sample:
    if not is_held_out(sample.agent_id, share):
        return sample
    return msgspec.structs.replace(sample, trains_as="skip", skip_reason=HELD_OUT)


def _without_old(sample: Sample, oldest: int) -> Sample:
    if sample.policy_step is None or sample.policy_step >= oldest or sample.trains_as == "skip":
        return sample
    return msgspec.structs.replace(sample, trains_as="skip", skip_reason=TOO_OLD)


def _compared(samples: list[Sample]) -> list[Sample]:
    """Gives advantages within groups; skips what cannot be compared and the worse half of imitations."""
    live = [i for i, sample in enumerate(samples) if sample.trains_as != "skip"]
    if not live:
        return samples
    kinds = ["other" if samples[i].trains_as == "imitate" else "own" for i in live]
    groups = [f"{samples[i].group}\0{kind}" for i, kind in zip(live, kinds, strict=True)]
    frame = pd.DataFrame({"group": groups, "reward": [samples[i].reward for i in live]})
    frame["advantage"], frame["spread"] = advantages(frame), spreads(frame)
    frame["size"] = frame.groupby("group")["reward"].transform("size")
    frame["rank"] = frame.groupby("group")["reward"].rank(method="first", ascending=False)
    rows = frame[["advantage", "spread", "size", "rank"]].itertuples(index=False, name=None)
    compared = list(samples)
    for i, (advantage, spread, size, rank) in zip(live, rows, strict=True):
        compared[i] = _placed(samples[i], advantage, spread, size, rank)
    return compared


def _placed(sample: Sample, advantage: float, spread: float, size: int, rank: float) -> Sample:
    reason: str | None = None
    if size < 2:
        reason = ALONE
    elif spread < SMALLEST_SPREAD:
        reason = NO_SPREAD
    elif sample.trains_as == "imitate" and (rank > size // 2 or advantage <= 0):
        reason = WORSE_HALF
    if reason is None:
        return msgspec.structs.replace(sample, advantage=advantage)
    kept = advantage if reason == WORSE_HALF else None
    return msgspec.structs.replace(sample, advantage=kept, trains_as="skip", skip_reason=reason)
