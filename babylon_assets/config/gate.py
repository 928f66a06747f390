"""How checkpoints are evaluated and promoted, and when a promotion is taken back."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from babylon_assets.config.group import Group, variable


class GateSettings(Group):
    """How checkpoints are evaluated, what the gate asks of them, and when the served policy goes back."""

    enabled: bool = variable(
        "GATE", True, "Judge every checkpoint before it is served and trained from; false promotes all."
    )
    confidence: Annotated[float, Ge(0.5), Le(0.9999)] = variable(
        "GATE_CONFIDENCE",
        0.95,
        "Confidence of the gate's intervals; a checkpoint is worse when the whole interval is below a bound.",
    )
    margin: Annotated[float, Ge(0), Le(10)] = variable(
        "GATE_MARGIN", 0.0, "Market reward that a checkpoint may lose against the live one."
    )
    decline: Annotated[float, Ge(0), Le(10)] = variable(
        "GATE_DECLINE", 0.01, "The same against the best that was ever promoted."
    )
    valid_drop: Annotated[float, Ge(0), Le(1)] = variable(
        "GATE_VALID_DROP", 0.02, "Share of valid actions that it may lose against either."
    )
    replay_margin: Annotated[float, Ge(0), Le(100)] = variable(
        "GATE_REPLAY_MARGIN", 0.1, "Nats by which its preference for better held-out answers may fall."
    )
    quarantined: Annotated[float, Ge(0), Le(1)] = variable(
        "GATE_QUARANTINED", 0.5, "Largest share of corrupt rows in the window it was trained on."
    )
    evaluation_seeds: Annotated[int, Ge(8), Le(100_000)] = variable(
        "EVALUATION_SEEDS", 48, "Held-out markets of 12 boards that every checkpoint is examined on."
    )
    evaluate_hosted: bool = variable(
        "EVALUATE_HOSTED",
        True,
        "Examine checkpoints of the hosted service through its inference, which it charges for: 576 short answers.",
    )
    replay_effective_samples: Annotated[float, Ge(1), Le(1e6)] = variable(
        "REPLAY_EFFECTIVE_SAMPLES",
        16.0,
        "Least effective sample size of an off-policy estimate; below it none is shown.",
    )
    auto_rollback: bool = variable(
        "AUTO_ROLLBACK", False, "Go back to the policy before when the live one leaves its band."
    )
    auto_rollback_valid_drop: Annotated[float, Ge(0), Le(1)] = variable(
        "AUTO_ROLLBACK_VALID_DROP", 0.1, "How far the live share of valid actions may fall."
    )
    auto_rollback_reward_drop: Annotated[float, Ge(0), Le(10)] = variable(
        "AUTO_ROLLBACK_REWARD_DROP", 0.3, "How far the live mean reward may fall."
    )
    write_trained_models: bool = variable(
        "WRITE_TRAINED_MODELS",
        False,
        "Write promotions into the game's trained_models, and mark the trajectories that were trained on.",
    )
