"""How checkpoints are evaluated and promoted, and when a promotion is taken back."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable


class GateSettings(Group):
    """How checkpoints are evaluated, what the gate asks of them, and when the served policy goes back."""

    enabled: bool = variable(
        "GATE",
        True,
        "Whether the gate evaluates a checkpoint before it is served and trained from. `false` promotes "
        "every checkpoint.",
    )
    confidence: Annotated[float, Ge(0.5), Le(0.9999)] = variable(
        "GATE_CONFIDENCE",
        0.95,
        "The confidence of the gate's intervals. A checkpoint is worse when its whole interval lies below a bound.",
    )
    margin: Annotated[float, Ge(0), Le(10)] = variable(
        "GATE_MARGIN", 0.0, "How much mean reward a checkpoint may lose against the served policy."
    )
    decline: Annotated[float, Ge(0), Le(10)] = variable(
        "GATE_DECLINE",
        0.01,
        "How much mean reward on the simulated market a checkpoint may lose against the best policy ever promoted.",
    )
    valid_drop: Annotated[float, Ge(0), Le(1)] = variable(
        "GATE_VALID_DROP",
        0.02,
        "How far the share of valid actions may fall below the served policy's, or below the best policy's.",
    )
    replay_margin: Annotated[float, Ge(0), Le(100)] = variable(
        "GATE_REPLAY_MARGIN",
        0.1,
        "How many nats the preference for better answers of held-out agents may fall below the served policy's.",
    )
    quarantined: Annotated[float, Ge(0), Le(1)] = variable(
        "GATE_QUARANTINED", 0.5, "The largest share of quarantined rows in the window that a checkpoint was trained on."
    )
    evaluation_seeds: Annotated[int, Ge(8), Le(100_000)] | None = variable(
        "EVALUATION_SEEDS",
        None,
        "How many held-out markets, of 12 boards each (4 in the game's style), evaluate a checkpoint. Without it 48, "
        "or 16 for a language model on this machine.",
    )
    evaluation_prompts: Annotated[int, Ge(0), Le(10_000)] = variable(
        "EVALUATION_PROMPTS",
        64,
        "How many recorded prompts of the environment evaluate a checkpoint. `0` asks none.",
    )
    snapshots: str | None = variable(
        "GATE_SNAPSHOTS",
        None,
        "A folder with benchmark snapshots of the game. The gate asks both policies about them, in the game's own "
        "prompt form, beside the recorded prompts.",
    )
    evaluate_hosted: bool = variable(
        "EVALUATE_HOSTED",
        True,
        "Whether checkpoints of the hosted service are evaluated. The service charges for their answers.",
    )
    auto_rollback: bool = variable(
        "AUTO_ROLLBACK",
        False,
        "Whether the policy before is served again when the served policy falls too far below it.",
    )
    auto_rollback_valid_drop: Annotated[float, Ge(0), Le(1)] = variable(
        "AUTO_ROLLBACK_VALID_DROP",
        0.1,
        "How far the served policy's share of valid actions may fall before a rollback.",
    )
    auto_rollback_reward_drop: Annotated[float, Ge(0), Le(10)] = variable(
        "AUTO_ROLLBACK_REWARD_DROP", 0.3, "How far the served policy's mean reward may fall before a rollback."
    )
    write_trained_models: bool = variable(
        "WRITE_TRAINED_MODELS",
        False,
        "Whether promotions are written into the game's trained_models, and trained trajectories are marked there.",
    )
