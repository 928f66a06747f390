"""From a dataset's samples to what ART trains on: groups of trajectories with exact tokens and log-probabilities.

The one form that is fed to ART is a Choice whose tokens are written `token_id:<n>`, with the log-probability of each
at temperature 1 and the end of turn included: every other form is dropped or mistrained by it without a word.
Which samples a dataset has is decided in `domain.datasets`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from babylon_assets.domain.chat_turns import answer_message, chat_turns, decoded_tools, shown_text, wire_messages
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.grouping import baseline_in, measure_range

if TYPE_CHECKING:
    from art import Trajectory, TrajectoryGroup


SPELLS_TOKENS = "a text spells a model's own tokens"
#: Special tokens of the common families: ChatML and Llama 3, Llama 2 and Mistral, Gemma.
_OWN_TOKEN = re.compile(
    r"<\|[^\s<>|]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples that one training takes, and how many others it leaves out, by reason.

    Attributes:
        baselines: the reward that the answers of a group are compared with, of groups whose other answers are not
            here: those of late samples, and those that are compared with a running mean. Of any other group it is the
            mean of its rewards.
    """

    policy_gradient: list[Sample]
    sft: list[Sample]
    left_out: dict[str, int]
    baselines: Mapping[str, float] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """`policy_gradient`, `sft`, or `nothing`."""
        if self.policy_gradient:
            return "policy_gradient"
        return "sft" if self.sft else "nothing"

    def recorded_only(self, reason: str) -> Selection:
        """The same without answers to imitate, which are counted under the reason."""
        counted = {reason: len(self.sft)}
        return Selection(self.policy_gradient, [], {**self.left_out, **(counted if self.sft else {})}, self.baselines)

    def groups_only(self, reason: str) -> Selection:
        """The same without answers that are compared with others than those here, counted under the reason."""
        kept = [sample for sample in self.policy_gradient if sample.group not in self.baselines]
        counted = {reason: lost} if (lost := len(self.policy_gradient) - len(kept)) else {}
        return Selection(kept, self.sft, {**self.left_out, **counted})


def select(dataset: Dataset, parent_step: int, max_lag: int, lags: Mapping[str, int] | None = None) -> Selection:
    """Choose what to train on.

    Args:
        lags: how many checkpoints each policy, by its name, is from the parent, as of `ledger.lineage.policy_lags`; of
            one that is not named here the steps are compared.

    Answers of our own policies are trained by policy gradient when the policy is at most `max_lag` checkpoints behind
    the parent and its group keeps a reward range. Other models' answers are imitated, and only in a window that
    has none of ours: imitation is how a chain begins, and would pull a policy that already learns back to its experts.
    """
    left_out: Counter[str] = Counter()
    recorded: list[Sample] = []
    sft: list[Sample] = []
    for sample in dataset.samples:
        lag = (lags or {}).get(sample.policy or "", parent_step - (sample.policy_step or 0))
        reason = _reason_against(sample, lag, max_lag)
        if reason is not None:
            left_out[reason] += 1
        else:
            (recorded if sample.trains_as == "policy_gradient" else sft).append(sample)
    baselines = {
        sample.group: (sample.reward or 0.0) - (sample.advantage or 0.0)
        for sample in recorded
        if sample.window != dataset.window or baseline_in(sample.group) is not None
    }
    policy_gradient, lost = _with_range(recorded, baselines)
    left_out.update({"group has no spread": lost} if lost else {})
    if policy_gradient and sft:
        left_out["another model's answer in a window of our own"] += len(sft)
        sft = []
    return Selection(policy_gradient, sft, dict(left_out), baselines)


def without_spelled_tokens(dataset: Dataset) -> Dataset:
    """The dataset for who makes tokens of texts: a sample whose text spells a model's own tokens is skipped.

    The policy read these characters; the tokens that a chat template makes of them would be another prompt.
    """
    samples = [
        replace(sample, trains_as="skip", skip_reason=SPELLS_TOKENS)
        if sample.trains_as != "skip" and _spells_tokens(sample)
        else sample
        for sample in dataset.samples
    ]
    return replace(dataset, samples=samples)


def _spells_tokens(sample: Sample) -> bool:
    read = [shown_text(message) for message in sample.messages] + [sample.tools or ""]
    texts = [*read, shown_text(answer_message(sample))] if sample.trains_as == "sft" else read
    return any(_OWN_TOKEN.search(text) for text in texts)


def _reason_against(sample: Sample, lag: int, max_lag: int) -> str | None:
    if sample.trains_as == "skip":
        return sample.skip_reason or "skipped"
    if sample.trains_as == "recompute":
        return "log-probabilities were not recorded"
    if sample.trains_as == "policy_gradient" and lag > max_lag:
        return f"policy more than {max_lag} checkpoints behind"
    return None


def _with_range(samples: Iterable[Sample], baselines: Mapping[str, float]) -> tuple[list[Sample], int]:
    """The samples of groups in which rewards differ, the rest of a late sample's included; how many others there were.

    A group of late samples keeps the reward range that it had among all of its window, where it was found to have one.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)
    kept_groups = [group for key, group in groups.items() if key in baselines or _has_range(group)]
    return [sample for group in kept_groups for sample in group], sum(map(len, groups.values())) - sum(
        map(len, kept_groups)
    )


def _has_range(group: Sequence[Sample]) -> bool:
    rewards = [sample.reward or 0.0 for sample in group]
    return bool(measure_range(max(rewards), min(rewards)))


def trajectory_groups(samples: Sequence[Sample], baselines: Mapping[str, float] | None = None) -> list[TrajectoryGroup]:
    """ART's groups, one per group of samples, in the samples' order.

    ART compares a reward with the mean of its group. Where a baseline is given, one more trajectory, without an answer
    and so without anything to train on, stands for the answers that are not here: with it the mean is the baseline.
    """
    from art import TrajectoryGroup

    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(_recorded_trajectory(sample))
    for key, baseline in (baselines or {}).items():
        if key in groups:
            groups[key].append(_stand_in(baseline, [member.reward for member in groups[key]]))
    return [TrajectoryGroup(trajectories) for trajectories in groups.values()]


def _stand_in(baseline: float, rewards: Sequence[float]) -> Trajectory:
    from art import Trajectory

    unanswered: list[Any] = [{"role": "user", "content": ""}]
    return Trajectory(messages_and_choices=unanswered, reward=baseline * (len(rewards) + 1) - sum(rewards))


def reward_groups(samples: Sequence[Sample]) -> list[TrajectoryGroup]:
    """The same groups with rewards alone, for a backend that has the samples themselves (`recorded`)."""
    from art import Trajectory, TrajectoryGroup

    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(Trajectory(messages_and_choices=[], reward=sample.reward or 0.0))
    return [TrajectoryGroup(trajectories) for trajectories in groups.values()]


def demonstrations(samples: Sequence[Sample]) -> list[Trajectory]:
    """Answers to imitate as ART's trajectories; the reward is the weight, the sample's advantage in its group.

    They are for templates and not for the wire, so that ART's own check of their form is left out.
    """
    from art import Trajectory

    return [
        Trajectory.model_construct(
            messages_and_choices=turns(sample),
            tools=decoded_tools(sample.tools),
            reward=max(0.0, sample.advantage or 0.0),
            metadata={"group": sample.group},
        )
        for sample in samples
    ]


def turns(sample: Sample) -> list[Any]:
    """A conversation with its answer as chat templates and ART take it."""
    return chat_turns([*sample.messages, answer_message(sample)])


def _recorded_trajectory(sample: Sample) -> Trajectory:
    from art import Trajectory
    from openai.types.chat.chat_completion import Choice

    assert sample.token_ids is not None and sample.logprobs is not None
    tokens = [
        {"token": f"token_id:{token}", "logprob": logprob, "top_logprobs": []}
        for token, logprob in zip(sample.token_ids, sample.logprobs, strict=True)
    ]
    choice = Choice.model_validate(
        {
            "finish_reason": "stop",
            "index": 0,
            "message": wire_messages([answer_message(sample)])[0],
            "logprobs": {"content": tokens},
        }
    )
    return Trajectory.model_construct(
        messages_and_choices=[*wire_messages(sample.messages), choice],
        tools=decoded_tools(sample.tools),
        reward=sample.reward or 0.0,
    )
