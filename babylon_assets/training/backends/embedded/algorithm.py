"""The algorithm of a training, from top to bottom: what one window does to the policy.

A window's samples are answers y to prompts x, with the log-probability that the behaviour policy mu gave each token
when it was sampled, and a reward R. They are used at once: `passes` over them, a few optimizer steps, then the next
window.

1. Compare (`recorded_tokens`). A sample's advantage is A = R - b, where b is the mean reward of its group, or the
   baseline that the group had in its own window if it is a late sample carried over. A is not divided by the group's
   standard deviation (Liu et al. 2025, "Understanding R1-Zero-like training", arXiv:2503.20783).
2. Weigh (ART's packing). Each answer weighs the same, whatever its length: a token has the weight w = 1 / length,
   scaled to a mean of 1 over the window's trained tokens. A is scaled so that the mean of |A| w over them is 1, so that
   a window of small differences moves the policy as far as one of large ones.
3. Pack (ART, then `sequence_packing`). Answers of a group share their prompt's tokens in a row; an attention mask keeps
   them from seeing each other. Rows are shuffled, and `rows_per_step` of them make a step.
4. Hold (`sure_tokens`). A token that mu gave more than 0.98 was no choice: in an answer with A > 0 its own A is the
   constant `sure_weight`. The noise of advantages would wear the form of answers away; so, answers stay valid.
5. Loss (`art.loss`). With the ratio r = pi(y_t | x, y_<t) / mu(y_t | x, y_<t), summed over a step's answer tokens:

       L = - sum( w min(r A, clip(r, 1 - eps, 1 + eps) A) ) / tokens

   This is PPO's clipped surrogate (Schulman et al. 2017, arXiv:1707.06347) without a value function and, per token, as
   GRPO has it (Shao et al. 2024, arXiv:2402.03300), without its penalty for leaving a reference policy.
6. Step (`trainer`). AdamW (betas 0.9 and 0.99, no weight decay) on a LoRA adapter, after the gradient's norm is cut to
   `max_grad_norm`. The optimizer's two moments are kept beside the adapter and carried over to the next window.
7. Trust region. Before every step but the first, and after the last, the distance KL(mu || pi) of the rows in hand is
   estimated by Schulman's k3 = mean(r - 1 - log r) ("Approximating KL divergence", 2020). Where it exceeds what it was
   before any step by more than `max_kl`, the step before is undone, optimizer included, and the training ends: the
   rest of the window, or of a later pass, is not trained on. What it was is that of the first rows, if one policy gave
   all answers; with late samples, whose policies are older, it is that of the very rows, looked at before the first
   step.
8. Halve. If even the first step was undone, it is tried again at half the step size, at most HALVINGS times. If no step
   is kept, there is no checkpoint.

A window that has no answer of our own policies is imitated instead: the weighted mean of -log pi(y_t) over the answers'
tokens, a step per IMITATION_BATCH answers in shuffled order, each answer weighted by max(0, A), in `imitation_passes`,
without a trust region.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from babylon_assets.training.sequence_packing import parts

if TYPE_CHECKING:
    import torch
    from art import dev
    from art.preprocessing.tokenize import SFTBatch

    from babylon_assets.training.backends.embedded.trainer import Trainer

#: Answers that one imitation step averages over.
IMITATION_BATCH = 8
#: How often the first step is tried again at half its size when it goes too far, before the window is given up.
HALVINGS = 6


def policy_gradient_pass(
    trainer: Trainer,
    rows: dict[str, torch.Tensor],
    rows_per_step: int,
    config: dev.TrainConfig,
    several_policies: bool = False,
    *,
    passes: int = 1,
) -> Iterator[dict[str, float]]:
    """Steps 4 to 8 over a window's packed rows; yields the metrics of each step, `again` among those of a later pass.

    Args:
        rows: ART's packed tensors, each [rows, length]; see `Trainer.policy_gradient_step`.
        several_policies: the answers are of policies of different age; each batch then has a distance of its own.
    """
    batches = [
        {name: tensor[part] for name, tensor in rows.items()} for part in parts(len(rows["tokens"]), rows_per_step)
    ]
    distances = [trainer.kl_to_behaviour(batch, config) if several_policies else None for batch in batches]
    for number, (batch, before) in enumerate(passes * list(zip(batches, distances, strict=True))):
        metrics = trainer.policy_gradient_step(batch, config, before, again=number >= len(batches))
        if metrics is None:
            break
        yield {**metrics, "train/num_gradient_steps": passes * len(batches)}
    else:
        trainer.undo_if_too_far(batches[0], config)
    for _ in range(HALVINGS):
        if trainer.has_learned:
            break
        trainer.retry_smaller(batches[0], config)


def imitation_pass(trainer: Trainer, batches: Sequence[SFTBatch], *, passes: int = 1) -> Iterator[dict[str, float]]:
    """Weighted imitation over prepared batches; yields the metrics of each step, `again` as above."""
    for number, batch in enumerate(passes * list(batches)):
        (rows,) = batch.trajectory_tensors
        metrics = trainer.imitation_step(rows, again=number >= len(batches))
        yield {**metrics, "train/num_gradient_steps": passes * len(batches)}
