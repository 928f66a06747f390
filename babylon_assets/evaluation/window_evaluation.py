"""A window's evaluations: its checkpoint beside the one it was trained from, the served one and the base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.evaluations import Interval, paired
from babylon_assets.domain.policies import policy_name
from babylon_assets.evaluation.loaded_policies import why_not_loadable
from babylon_assets.evaluation.measurements import (
    measure_benchmark,
    measure_off_policy,
    measure_prompts,
    prompts_asked,
)
from babylon_assets.evaluation.recorded_prompts import answers_of
from babylon_assets.ledger import checkpoints, verdicts
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.evaluations import Evaluation

#: The roles in which a policy is measured, the window's own checkpoint first.
CHECKPOINT, PARENT, PROMOTED, BASE = "checkpoint", "parent", "promoted", "base"


@dataclass(frozen=True, slots=True)
class EvaluatedWindow:
    """What was measured of a window's policies, by role.

    Attributes:
        checkpoint: the window's own; None for a window that was passed through.
        market, recorded, off_policy: measurements by role; a role is missing where its policy cannot be played
            here, or where there was nothing to measure on.
        unplayable: why the window's own checkpoint cannot be played here; None when it can.
        policies: the name of each role's policy.
    """

    checkpoint: Checkpoint | None
    market: dict[str, Evaluation]
    recorded: dict[str, Evaluation]
    off_policy: dict[str, Evaluation]
    unplayable: str | None = None
    policies: Mapping[str, str] = field(default_factory=dict)

    def gain(self, baseline: str) -> Interval | None:
        """Market reward of the checkpoint less that of another role, seed by seed."""
        ours, theirs = self.market.get(CHECKPOINT), self.market.get(baseline)
        return None if ours is None or theirs is None else paired(ours.results["rewards"], theirs.results["rewards"])

    def numbers(self) -> dict[str, float | None]:
        """Everything that is worth a plot over the windows."""
        return {**self._market_numbers(), **self._recorded_numbers(), **self._off_policy_numbers()}

    def _market_numbers(self) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {}
        for role, evaluation in self.market.items():
            name = "market" if role == CHECKPOINT else f"{role}_market"
            numbers[f"{name}_reward"] = evaluation.value
            numbers[f"{name}_valid_share"] = evaluation.results["valid_share"]
            numbers[f"{name}_advantage"] = evaluation.results["advantage"]
        if (ours := self.market.get(CHECKPOINT)) is not None:
            numbers |= {"market_reward_low": ours.low, "market_reward_high": ours.high}
        for role in (PROMOTED, BASE):
            if (gain := self.gain(role)) is not None:
                numbers |= {f"gain_on_{role}": gain.value, f"gain_on_{role}_low": gain.low}
                numbers[f"gain_on_{role}_high"] = gain.high
        return numbers

    def _recorded_numbers(self) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {}
        for role, evaluation in self.recorded.items():
            name = "recorded" if role == CHECKPOINT else f"{role}_recorded"
            numbers[f"{name}_reward"] = evaluation.value
            numbers[f"{name}_valid_share"] = evaluation.results["valid_share"]
        if (ours := self.recorded.get(CHECKPOINT)) is not None:
            numbers |= {"recorded_reward_low": ours.low, "recorded_reward_high": ours.high}
            answers = answers_of(ours)
            numbers["recorded_prompts"] = len(answers)
            numbers["recorded_valued"] = sum(answer.reward is not None for answer in answers.values())
            gain = ours.results["gain_on_recorded"]
            numbers["recorded_gain"] = gain[0] if gain else None
        return numbers

    def _off_policy_numbers(self) -> dict[str, float | None]:
        numbers: dict[str, float | None] = {}
        for role, evaluation in self.off_policy.items():
            name = "off_policy" if role == CHECKPOINT else f"{role}_off_policy"
            gaps = evaluation.results["preferences"].values()
            numbers[f"{name}_preference"] = fmean(gaps) if gaps else None
            numbers[f"{name}_estimate"] = evaluation.value
            numbers[f"{name}_effective_samples"] = evaluation.results["effective_samples"]
        if (ours := self.off_policy.get(CHECKPOINT)) is not None:
            numbers["off_policy_answers"] = ours.results["answers"]
        return numbers


def evaluate_window(settings: Settings, database: Database, window: str) -> EvaluatedWindow:
    """Measure what a window's checkpoint and those beside it can do; what was measured before is taken from there.

    It stands beside the policy that was served when it was judged: an old window shows what it showed then.
    """
    with database.connect() as conn:
        ours = checkpoints.by_window(conn, settings.model_name, window)
        line = checkpoints.chain(conn, settings.model_name)
        served = (
            verdicts.champion_of(conn, ours)
            if ours is not None
            else verdicts.served_after(conn, settings.model_name, window)
        )
        dataset = load_dataset(conn, ours.dataset_id) if ours is not None and ours.dataset_id else None
    if not line:
        return EvaluatedWindow(None, {}, {}, {})
    parent = next((policy for policy in line if ours is not None and policy.id == ours.parent_id), None)
    # the base first and the window's own last: each is compared with what stands before it
    roles = {BASE: line[0], PROMOTED: served or line[0], PARENT: parent, CHECKPOINT: ours}
    market, recorded, off_policy = {}, {}, {}
    places = prompts_asked(settings, database, window)
    for role, policy in roles.items():
        if policy is None:
            continue
        baseline = roles[PROMOTED] if role == CHECKPOINT else None
        market[role] = measure_benchmark(settings, database, policy, baseline)
        recorded[role] = measure_prompts(settings, database, policy, places)
        off_policy[role] = measure_off_policy(settings, database, policy, dataset) if dataset is not None else None
    unplayable = why_not_loadable(settings, ours) if ours is not None else None
    return EvaluatedWindow(
        checkpoint=ours,
        market=_without_missing(market),
        recorded=_without_missing(recorded),
        off_policy=_without_missing(off_policy),
        unplayable=unplayable,
        policies={role: policy_name(policy.chain, policy.step) for role, policy in roles.items() if policy is not None},
    )


def _without_missing(evaluations: dict[str, Any]) -> dict[str, Evaluation]:
    return {role: evaluation for role, evaluation in evaluations.items() if evaluation is not None}
