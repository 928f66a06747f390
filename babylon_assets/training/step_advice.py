"""What the steps of a training say about its settings: whether they moved the policy, and whether they were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from babylon_assets.domain.display_text import format_number
from babylon_assets.domain.token_counts import seen_tokens

#: A window that moves the policy by less than this share of MAX_KL hardly moves it.
LEAST_MOVED = 0.01
#: The smallest share of a window's tokens that should be trained on in steps that are kept.
LEAST_KEPT = 0.5
#: Little is left to learn where the mean reward lacks less than this of the best, as a share of the way from the worst.
LITTLE_LEFT = 0.15
#: Rewards that differ by less than this from what they are compared with, on average, teach little.
LEAST_ADVANTAGE = 0.01


def why_little_is_left(
    advantages: Sequence[float], reward: float | None, reference: Mapping[str, float] | None = None
) -> str:
    """Why a window has little to teach, so that small steps are as they should be; empty when it has more.

    Args:
        advantages: of the answers that are trained on.
        reward: mean reward of the window.
        reference: what known policies would have earned there, by name, the best and the worst among them.
    """
    known = [value for value in (reference or {}).values() if value is not None]
    best, worst = max(known, default=0.0), min(known, default=0.0)
    if reward is not None and best > worst and best - reward < LITTLE_LEFT * (best - worst):
        reached, most = format_number(reward, padded=True), format_number(best, padded=True)
        return f"little is left to learn, for the mean reward is {reached} and the best there is {most}"
    if advantages and (mean := fmean(map(abs, advantages))) < LEAST_ADVANTAGE:
        return f"there is little to learn, for rewards that are compared differ by {format_number(mean)} on average"
    return ""


def advise(
    steps: Sequence[Mapping[str, float]], settings: Mapping[str, Any], tokens: int, little_left: str = ""
) -> str:
    """A sentence that names the setting to change, if one is; empty when the steps are well, or say nothing of it.

    Args:
        steps: metrics of each optimizer step, those of `Trainer.policy_gradient_step`.
        settings: the training's own, as in the checkpoint's manifest.
        tokens: that there were to train on.
        little_left: why steps are small whatever the settings are, as of `why_little_is_left`.
    """
    kept = [step for step in steps if "undone" not in step and "kl_to_parent" in step]
    if not kept or "max_kl" not in settings:
        return ""
    rate, bound = settings["learning_rate"], settings["max_kl"]
    if len(kept) < len(steps) and seen_tokens(kept) < LEAST_KEPT * tokens:
        return (
            f"most of its tokens were not trained on, for a step goes further than MAX_KL={bound:g} allows: set "
            f"LEARNING_RATE lower than {rate:g}, or MAX_KL higher"
        )
    moved = kept[-1]["kl_to_parent"]
    if len(kept) == len(steps) and moved < LEAST_MOVED * bound:
        if little_left:
            return f"{little_left}; so its steps hardly moved the policy"
        return (
            "the steps hardly moved the policy on the tokens that they saw, "
            f"by {format_number(moved)} nats a token of the {bound:g} that MAX_KL allows: "
            f"set LEARNING_RATE higher than {rate:g}, or take more steps with a lower ROWS_PER_STEP"
        )
    return ""
