"""Training datasets: which answers of a window are trained on, how, and against which others.

A dataset is a value: the same records, calls and rewards give the same samples in the same order and the same
id. How it is trained on is the business of `training`; where it is kept, of `store`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from msgspec.structs import replace

from babylon_assets.domain.baselines import (
    Likeness,
    RunningMean,
    compare_samples,
    skip_sample,
)
from babylon_assets.domain.dataset_codec import chats_of, dataset_id, decode, draft, encode, head_of, with_texts
from babylon_assets.domain.gradient_shares import OVER_SHARE, bound_shares, largest_shares
from babylon_assets.domain.grouping import GroupMode, Ladder, build_ladder
from babylon_assets.domain.hindsight import NAMES_RESULT, Place, result_in
from babylon_assets.domain.joining import JoinedSample, JoinedWindow, RecordedCall, join_calls
from babylon_assets.domain.policies import policy_step
from babylon_assets.domain.rewards import DEFAULT_WEIGHTS, INVALID_REWARD, refused_score
from babylon_assets.domain.samples import (
    Dataset,
    DatasetDraft,
    Sample,
    SampleHead,
    StepScore,
    StepScores,
    TrainsAs,
    count,
)
from babylon_assets.domain.sampling import (
    CONSTRAINED,
    HELD_OUT,
    NO_ROOM,
    TOO_OLD,
    bounded,
    held_out_agents,
    is_constrained,
)
from babylon_assets.domain.trajectories import (
    CallHead,
    RawSample,
    TrajectoryRecord,
    encode_chat,
    exchange_of,
    store_samples,
)

__all__ = [
    "Dataset",
    "DatasetDraft",
    "Sample",
    "TrainsAs",
    "build_dataset",
    "count",
    "dataset_id",
    "decode",
    "draft_dataset",
    "encode",
    "scores_by_step",
]

NOT_YET_KNOWN = "outcome not yet known"
NEVER_KNOWN = "outcome cannot be known"
NOT_SCORED = "step has no score"
NO_NUMBER = "a scorer has no number for it yet"
#: Counts of a dataset that has samples of other windows.
CARRIED, CARRIED_TRAJECTORIES = "carried_samples", "carried_trajectories"
_CHARACTERS_PER_TOKEN = 4


def draft_dataset(
    window: str,
    records: Iterable[TrajectoryRecord],
    calls: Mapping[str, RecordedCall],
    scores: StepScores,
    model_name: str,
    chats: Mapping[str, str],
    *,
    moment_seconds: float = 30,
    group_mode: GroupMode = "moment",
    head_step: int | None = None,
    max_policy_lag: int | None = None,
    held_out_share: float = 0.0,
    max_samples: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    carried: Iterable[Sample] = (),
    result_keys: tuple[str, ...] = (),
    suspicious: Collection[Place] = (),
    weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    invalid_reward: float = INVALID_REWARD,
    max_gradient_share: float = 1.0,
    likeness: Likeness = Likeness(),  # noqa: B008 - an immutable value
) -> DatasetDraft:
    """Build the dataset of a window, its texts unread.

    Each sample gets the reward of its step and is compared with those of its group (`baselines`): answers of our own
    policies among each other, other models' answers among each other. Of the latter the better half is imitated, but
    for what the environment refused. What cannot be trained on stays in, as `skip` with the reason.

    Args:
        calls: recorded answers by call id. `joining.join_calls` says which belong where.
        scores: as of `scores_by_step`; a step that is not there was not scored.
        model_name: `<model_name>@<step>` are our policies.
        chats: sha256 of the chat (`trajectories.StoredSamples`) of each record that has samples, by trajectory id.
        head_step, max_policy_lag: an answer of a policy further behind `head_step` than that is skipped.
        held_out_share: as of `sampling.held_out_agents`, whose samples are scored and kept, but not compared.
        max_samples, max_tokens, seed: bounds of what is trained on, and what the choice is drawn by.
        carried: late samples of earlier windows, which join these as they are, as far as there is room.
        result_keys, suspicious: as of `hindsight`; a sample whose prompt names a result is skipped. `suspicious` are
            those of the records' own texts, which are not read here.
        weights, invalid_reward: of the scores; a refused answer gets its own reward by them.
        max_gradient_share, likeness: as of `gradient_shares.bound_shares`, of the window's own samples; what is alike.
    """
    joined = join_calls(records, calls)
    rules = _Rules(
        window=window,
        model_name=model_name,
        moment_seconds=moment_seconds,
        mode=group_mode,
        oldest=0 if head_step is None or max_policy_lag is None else head_step - max_policy_lag,
        held_out_share=held_out_share,
        result_keys=result_keys,
        suspicious=frozenset(suspicious),
        weights=weights,
        invalid_reward=invalid_reward,
        likeness=likeness,
    )
    samples = _compared(rules, joined, scores, max_gradient_share)
    return _draft(window, samples, joined, _others(carried, joined), chats, (max_samples, max_tokens, seed))


def _compared(rules: _Rules, joined: JoinedWindow, scores: StepScores, most: float) -> list[SampleHead]:
    """The window's own samples with what they are compared with, without what would be too much of the gradient."""
    samples, refused, ladders = _heads(rules, joined.samples, scores)
    mean = rules.likeness.running_mean
    compare_samples(_ordered(samples), ladders, refused=refused, running_mean=mean)
    compare_again = partial(_compare_own, samples, ladders, mean)
    bound_shares(samples, _keys(joined), most, partial(skip_sample, reason=OVER_SHARE), compare_again)
    return _ordered(samples)


def _draft(
    window: str,
    samples: list[SampleHead],
    joined: JoinedWindow,
    others: Sequence[Sample],
    chats: Mapping[str, str],
    bounds: tuple[int | None, int | None, int],
) -> DatasetDraft:
    """The samples, with others of earlier windows, that there is room for, and the hashes of their texts."""
    if others:
        samples = _ordered([*samples, *map(head_of, others)])
    samples = bounded(samples, *bounds)
    if others:
        samples = [sample for sample in samples if sample.window == window or sample.skip_reason != NO_ROOM]
    own = {**_own_chats(joined), **_chats_among(others, samples)}
    counts = {**joined.counts, **count(samples), **_counted(samples, window)}
    drafted = draft(window, samples, counts, _hashes(joined, chats, own), own)
    return replace(drafted, shares=largest_shares(samples, _keys(joined)))


def _hashes(joined: JoinedWindow, chats: Mapping[str, str], own: Mapping[str, bytes]) -> dict[str, str]:
    """sha256 of the texts of each trajectory."""
    hashes = {name: chats[name] for name in {sample.record.trajectory_id for sample in joined.samples} - own.keys()}
    return hashes | {trajectory: sha256(chat).hexdigest() for trajectory, chat in own.items()}


def _keys(joined: JoinedWindow) -> dict[str, str]:
    """The name of the gateway's key by sample, of those whose call was made with one."""
    return {
        _sample_id(sample.record, sample.raw): sample.call.key_name
        for sample in joined.samples
        if sample.call is not None and sample.call.key_name is not None
    }


def _others(carried: Iterable[Sample], joined: JoinedWindow) -> list[Sample]:
    """The carried samples, without those of trajectories that are among the window's own by now."""
    own = {member.record.trajectory_id for member in joined.samples}
    return [sample for sample in carried if sample.trajectory_id not in own]


def _chats_among(others: Sequence[Sample], samples: Iterable[SampleHead]) -> dict[str, bytes]:
    """The texts of those of the carried samples that there was room for."""
    kept = {sample.sample_id for sample in samples} if others else set()
    return chats_of([sample for sample in others if sample.sample_id in kept])


def _counted(samples: Iterable[SampleHead], window: str) -> dict[str, int]:
    """How many samples came from other windows; nothing where none did."""
    carried = [sample for sample in samples if sample.window != window]
    trajectories = {sample.trajectory_id for sample in carried}
    return {CARRIED: len(carried), CARRIED_TRAJECTORIES: len(trajectories)} if carried else {}


def build_dataset(
    window: str,
    records: Iterable[TrajectoryRecord],
    calls: Mapping[str, RecordedCall],
    scores: pd.DataFrame,
    model_name: str,
    **options: Any,
) -> Dataset:
    """The dataset that `draft_dataset` drafts, which has the same options, with its texts.

    Args:
        scores: as of `rewards.score_valued`: a row per trajectory_id and step with `reward`, `state` and
            components.
    """
    records = list(records)
    texts = {record.trajectory_id: store_samples(record.samples).chat() for record in records if record.samples}
    hashes = {trajectory: sha256(chat).hexdigest() for trajectory, chat in texts.items()}
    drafted = draft_dataset(window, records, calls, scores_by_step(scores), model_name, hashes, **options)
    samples = with_texts(drafted.samples, {**texts, **drafted.own_chats}.__getitem__)
    return Dataset(drafted.id, window, samples, drafted.counts)


_UNSCORED: StepScore = (None, "unscored", {})
_NOT_COMPONENTS = {"window", "trajectory_id", "agent_id", "step", "state", "worth", "reward", "final", "entry", "exit"}


def scores_by_step(frame: pd.DataFrame) -> dict[tuple[str, int], StepScore]:
    """The scores of a window by trajectory id and step; components are its columns of floats, sorted by name."""
    names = sorted(str(c) for c in frame.columns if c not in _NOT_COMPONENTS and frame[c].dtype.kind == "f")
    values = zip(*(_or_none(frame[name]) for name in names), strict=True) if names else [()] * len(frame)
    states = frame["state"].tolist() if "state" in frame else ["pending"] * len(frame)
    components = (dict(zip(names, row, strict=True)) for row in values)
    scores = zip(_or_none(frame["reward"]), states, components, strict=True)
    keys = zip(frame["trajectory_id"].tolist(), frame["step"].tolist(), strict=True)
    return dict(zip(keys, scores, strict=True))


def _or_none(values: pd.Series[Any]) -> list[float | None]:
    return [value if value == value else None for value in values.astype("float64").tolist()]


class _Rules(NamedTuple):
    """What is the same for all samples of a dataset; answers of a policy before `oldest` are too old."""

    window: str
    model_name: str
    moment_seconds: float
    mode: GroupMode
    oldest: int
    held_out_share: float
    result_keys: tuple[str, ...]
    suspicious: frozenset[Place]
    weights: Mapping[str, float]
    invalid_reward: float
    likeness: Likeness

    def names_result(self, trajectory: str, raw: RawSample | CallHead) -> bool:
        if isinstance(raw, RawSample):
            return result_in(raw.messages, self.result_keys) is not None
        return (trajectory, raw.step, raw.call) in self.suspicious


def _heads(
    rules: _Rules, joined: Sequence[JoinedSample], scores: StepScores
) -> tuple[list[SampleHead], set[str], dict[str, Ladder]]:
    """Samples that know all but what they are compared with, which of them were refused, and the groups of each."""
    heads: list[SampleHead] = []
    refused: set[str] = set()
    ladders: dict[str, Ladder] = {}
    behind_of = lru_cache(None)(policy_step)
    held_out = held_out_agents((sample.record.agent_id for sample in joined), rules.held_out_share)
    for record, samples in groupby(joined, key=_record_of):
        groups, trajectory, out = _groups(rules, record), record.trajectory_id, record.agent_id in held_out
        for _, raw, call in samples:
            score = scores.get((trajectory, raw.step), _UNSCORED)
            if raw.refused:
                score = refused_score(score, rules.weights, rules.invalid_reward)
            policy = (call.policy if call is not None else None) or raw.model
            behind = behind_of(policy, rules.model_name)
            head = _head(rules.window, record, raw, call, score, groups[raw.step].point, policy, behind)
            ladders[head.sample_id] = groups[raw.step]
            if rules.names_result(trajectory, raw):
                skip_sample(head, NAMES_RESULT)
            elif out:
                skip_sample(head, HELD_OUT)
            elif behind is not None and behind < rules.oldest and head.trains_as != "skip":
                skip_sample(head, TOO_OLD)
            elif (
                call is not None
                and is_constrained(call.sampling)
                and head.trains_as in ("policy_gradient", "recompute")
            ):
                skip_sample(head, CONSTRAINED)
            heads.append(head)
            if score[1] == "invalid":
                refused.add(head.sample_id)
    return heads, refused, ladders


_record_of = itemgetter(0)


def _groups(rules: _Rules, record: TrajectoryRecord) -> dict[int, Ladder]:
    """The groups that each of a record's steps may belong to."""
    ladder_of = partial(
        build_ladder,
        rules.window,
        moment_seconds=rules.moment_seconds,
        mode=rules.mode,
        agent_id=record.agent_id,
        agent_class=rules.likeness.class_of(record),
        state_seconds=rules.likeness.state_seconds,
    )
    return {fact.step: ladder_of(fact.moment_ms, kind=rules.likeness.kind_of(fact)) for fact in record.facts}


def _head(
    window: str,
    record: TrajectoryRecord,
    raw: RawSample | CallHead,
    call: RecordedCall | None,
    score: StepScore,
    group: str,
    policy: str,
    behind: int | None,
) -> SampleHead:
    reward, state, components = score
    exact = call if behind is not None and call is not None and _has_tokens(call) else None
    trains_as: TrainsAs = "sft" if behind is None else "policy_gradient" if exact is not None else "recompute"
    skip_reason = None if reward is not None else _why_no_reward(state)
    trains_as = trains_as if skip_reason is None else "skip"
    return SampleHead(
        sample_id=_sample_id(record, raw),
        window=window,
        trajectory_id=record.trajectory_id,
        agent_id=record.agent_id,
        step=raw.step,
        call=raw.call,
        group=group,
        model=raw.model,
        policy=None if behind is None else policy,
        policy_step=behind,
        prompt_token_ids=None if exact is None else list(exact.prompt_token_ids or ()),
        token_ids=None if exact is None else list(exact.token_ids or ()),
        logprobs=None if exact is None else list(exact.logprobs or ()),
        reward=reward,
        components=components,
        advantage=None,
        trains_as=trains_as,
        skip_reason=skip_reason,
        tokens=raw.characters // _CHARACTERS_PER_TOKEN if exact is None else len(exact.token_ids or ()),
    )


def _sample_id(record: TrajectoryRecord, raw: RawSample | CallHead) -> str:
    return f"{record.trajectory_id}/{raw.step}/{raw.call}"


def _has_tokens(call: RecordedCall) -> bool:
    """Whether the record has a prompt, an answer, and a finite log-probability for each of its tokens."""
    if not call.prompt_token_ids or not call.token_ids or call.logprobs is None:
        return False
    return len(call.logprobs) == len(call.token_ids) and bool(np.isfinite(call.logprobs).all())


def _why_no_reward(state: str) -> str:
    return {"unknown": NEVER_KNOWN, "unscored": NOT_SCORED, "pending": NOT_YET_KNOWN}.get(state, NO_NUMBER)


def _ordered(heads: list[SampleHead]) -> list[SampleHead]:
    """By group, trajectory, step and call; records come in the order of the last three, which sorts them fast."""
    heads.sort(key=attrgetter("trajectory_id", "step", "call"))
    heads.sort(key=attrgetter("group"))
    return heads


def _compare_own(heads: Sequence[SampleHead], ladders: Mapping[str, Ladder], running_mean: RunningMean | None) -> None:
    """Compares again what is trained against the answers that are left; the weight of an imitation stays."""
    compare_samples([head for head in heads if head.trains_as != "sft"], ladders, running_mean=running_mean)


def _own_chats(joined: JoinedWindow) -> dict[str, bytes]:
    """The texts of trajectories of which only the calls know any."""
    own = [sample for sample in joined.samples if isinstance(sample.raw, RawSample) and not sample.record.samples]
    own.sort(key=lambda sample: (sample.record.trajectory_id, sample.raw.step, sample.raw.call))
    return {
        trajectory: encode_chat([exchange_of(sample.raw) for sample in members if isinstance(sample.raw, RawSample)])
        for trajectory, members in groupby(own, key=lambda sample: sample.record.trajectory_id)
    }
