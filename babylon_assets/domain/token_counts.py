"""What became of the tokens that a training had: trained on, undone, not seen, left out. One sentence of it everywhere.

The names are those of a checkpoint's metrics. Together these counts are the `trainable_tokens` of its dataset, which
counts an answer that is known as text only by its characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TRAINED, UNDONE, UNSEEN, LEFT_OUT = "trained_tokens", "undone_tokens", "unseen_tokens", "left_out_tokens"
TOKEN_COUNTS = (TRAINED, UNDONE, UNSEEN, LEFT_OUT)


def seen_tokens(steps: Sequence[Mapping[str, float]]) -> float:
    """Tokens of answers that some steps saw, each once, however often a training went through them."""
    return sum(step["tokens"] for step in steps if "again" not in step)


def count_tokens(steps: Sequence[Mapping[str, float]], chosen: int, left_out: int = 0) -> dict[str, int]:
    """The counts of a training; those that are 0 are left out, but for that of trained tokens.

    Only the last step of a pass is undone, or the first steps, which are tries of the same tokens.

    Args:
        steps: metrics of each optimizer step, those of `Trainer.policy_gradient_step`.
        chosen: tokens that there were to train on.
        left_out: tokens of samples of the dataset that training did not choose.
    """
    trained = round(seen_tokens([step for step in steps if "undone" not in step]))
    undone = round(seen_tokens([step for step in steps[-1:] if "undone" in step]))
    stopped = any("undone" in step for step in steps)
    unseen = max(0, chosen - trained - undone) if stopped else 0
    counted = {UNDONE: undone, UNSEEN: unseen, LEFT_OUT: left_out}
    return {TRAINED: trained, **{name: tokens for name, tokens in counted.items() if tokens > 0}}


def format_trainable(tokens: int, counts: Mapping[str, Any]) -> str:
    """The trainable tokens of a dataset for a person: about as many, where answers are known as text alone.

    Args:
        counts: of the dataset.
    """
    estimated = any(counts.get(mode) for mode in ("recompute", "sft"))
    return f"about {tokens:,}" if estimated else f"{tokens:,}"


def trained_tokens(metrics: Mapping[str, Any]) -> int:
    """Tokens that the kept steps of a training saw, of a checkpoint's metrics; 0 where they do not say."""
    return int(metrics.get(TRAINED) or 0)


def format_trained(metrics: Mapping[str, Any]) -> str | None:
    """How many tokens a checkpoint was trained on, and of how many where not on all; None where that is not known.

    Args:
        metrics: of a checkpoint.
    """
    if metrics.get(TRAINED) is None:
        return None
    trained, every = trained_tokens(metrics), sum(int(metrics.get(name) or 0) for name in TOKEN_COUNTS)
    return f"{trained:,}" if trained == every else f"{trained:,} of {every:,}"


def explain_early_end(metrics: Mapping[str, Any]) -> str:
    """Why a training did not keep all of its tokens, and what became of them; empty when no step was undone for good.

    Args:
        metrics: of a checkpoint.
    """
    unseen, undone = int(metrics.get(UNSEEN) or 0), int(metrics.get(UNDONE) or 0)
    parts = [f"{undone:,} were those of the undone step"] if undone else []
    parts += [f"{unseen:,} were not seen"] if unseen else []
    if not parts:
        return ""
    *others, last = [f"{trained_tokens(metrics):,} were trained on", *parts]
    ended = ", which ended the pass" if unseen else ""
    return (
        f"a step went further from the policy before than MAX_KL allows and was undone{ended}: of "
        f"{trained_tokens(metrics) + undone + unseen:,} tokens {', '.join(others)} and {last}"
    )
