"""What the steps of a training say about its settings: whether they moved the policy, and whether they were kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: A window that moves the policy by less than this share of MAX_KL hardly moves it.
LEAST_MOVED = 0.01
#: The smallest share of a window's tokens that should be trained on in steps that are kept.
LEAST_KEPT = 0.5


def seen_tokens(steps: Iterable[Mapping[str, float]]) -> float:
    """Tokens of answers that some steps saw, each once, however often a training went through them."""
    return sum(step["tokens"] for step in steps if "again" not in step)


def advise(steps: Sequence[Mapping[str, float]], settings: Mapping[str, Any], tokens: int) -> str:
    """A sentence that names the setting to change; empty when the steps are well, or say nothing of it.

    Args:
        steps: metrics of each optimizer step, those of `Trainer.policy_gradient_step`.
        settings: the training's own, as in the checkpoint's manifest.
        tokens: that there were to train on.
    """
    kept = [step for step in steps if "undone" not in step and "kl_to_parent" in step]
    if not kept or "max_kl" not in settings:
        return ""
    seen = seen_tokens(kept)
    rate, bound = settings["learning_rate"], settings["max_kl"]
    if len(kept) < len(steps) and seen < LEAST_KEPT * tokens:
        return (
            f"the steps that were kept saw {seen:.0f} of {tokens} tokens, for they go further than MAX_KL={bound:g} "
            f"allows: set LEARNING_RATE lower than {rate:g}, or MAX_KL higher"
        )
    moved = kept[-1]["kl_to_parent"]
    if len(kept) == len(steps) and moved < LEAST_MOVED * bound:
        return (
            f"the steps hardly moved the policy, by {moved:.2g} nats a token where MAX_KL={bound:g} allows more: set "
            f"LEARNING_RATE higher than {rate:g}, or take more steps with a lower ROWS_PER_STEP"
        )
    return ""
