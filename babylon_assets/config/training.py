"""How training works, on each backend."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MultipleOf

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE, BackendName, TrainingUrl


class TrainingSettings(Group):
    """What training does on every backend."""

    backend: BackendName = variable("TRAINING_BACKEND", "auto", "Where training runs; auto picks by what is there.")
    base_model: str | None = variable(
        "BASE_MODEL", None, "Model to start from, a folder or hub name; absent: the project's own small one."
    )
    enabled: bool = variable("TRAIN_RL_LOCAL", True, "false stops every window before training.")
    max_policy_lag: Annotated[int, Ge(0)] = variable(
        "MAX_POLICY_LAG", 8, "How many checkpoints behind the head the policy of a trained answer may be."
    )
    seed: Annotated[int, Ge(0)] = variable("TRAIN_SEED", 0, "Seed of training.")
    threads: Annotated[int, Ge(1)] = variable("TRAIN_THREADS", 1, "CPU threads of training and of the embedded engine.")
    wandb_api_key: str | None = variable(
        "WANDB_API_KEY", None, "Key of W&B; with it training can run on the hosted service.", secret=True
    )
    wandb_project: str = variable("WANDB_PROJECT", "babylon", "Project that W&B files the runs under.")


class EmbeddedSettings(Group):
    """How the embedded trainer works, on the CPU or on one GPU."""

    learning_rate: Annotated[float, Gt(0), Le(1)] = variable("LEARNING_RATE", 1.5e-3, "Step size of the optimizer.")
    lora_rank: Annotated[int, Ge(1), Le(256)] = variable("LORA_RANK", 32, "Rank of the trained adapter.")
    gradient_tokens: Annotated[int, Ge(256)] = variable(
        "GRADIENT_TOKENS", 1024, "Tokens of one packed row; a longer answer gets a longer one."
    )
    rows_per_step: Annotated[int, Ge(1)] = variable(
        "ROWS_PER_STEP", 3, "Packed rows that one optimizer step averages over."
    )
    clip_epsilon: Annotated[float, Gt(0), Le(1)] = variable(
        "CLIP_EPSILON", 0.2, "How far a probability ratio may move before its gradient is cut."
    )
    max_kl: Annotated[float, Gt(0), Le(100)] = variable(
        "MAX_KL",
        0.005,
        "A step that moves the policy further than this from the one that answered, in nats a token, is undone.",
    )
    max_grad_norm: Annotated[float, Gt(0), Le(1000)] = variable(
        "MAX_GRAD_NORM", 0.2, "Gradient norm is clipped to this."
    )
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], LOWER_CASE] = variable(
        "TRAIN_DTYPE",
        "auto",
        "Numbers that the embedded trainer computes with; auto: bfloat16 for a large model where that is fast.",
    )


class ServerlessSettings(Group):
    """How the hosted service is asked to train, and what that may cost."""

    url: TrainingUrl = variable(
        "SERVERLESS_URL", "https://api.training.wandb.ai/v1", "Where the hosted service answers."
    )
    learning_rate: Annotated[float, Gt(0), Le(1)] = variable(
        "SERVERLESS_LEARNING_RATE",
        5e-06,
        "Step size of the hosted service's optimizer; its base models are far larger than the embedded one.",
    )
    timeout_seconds: Annotated[int, Ge(1)] = variable(
        "SERVERLESS_TIMEOUT_SECONDS", 120, "How long one request to the hosted service may take."
    )
    wait_minutes: Annotated[float, Gt(0), Le(10000)] = variable(
        "SERVERLESS_WAIT_MINUTES",
        60.0,
        "How long a hosted job may be silent before the run gives up waiting; the next run attaches to it again.",
    )
    usd_per_million_tokens: Annotated[float, Ge(0), Le(1e6)] = variable(
        "SERVERLESS_USD_PER_MILLION_TOKENS",
        0.0,
        "What a million tokens sent to the hosted service cost, for estimates, the ledger and the cap.",
    )
    daily_usd: Annotated[float, Ge(0), Le(1e9)] | None = variable(
        "SERVERLESS_DAILY_USD",
        None,
        "Hosted jobs that would spend more than this in one UTC day are not submitted; absent: no cap.",
    )


class LocalGpuSettings(Group):
    """How ART trains on a GPU of this machine."""

    learning_rate: Annotated[float, Gt(0), Le(1)] = variable(
        "LOCAL_GPU_LEARNING_RATE",
        5e-06,
        "Step size on a local GPU, whose base models are far larger than the embedded one.",
    )
    row_tokens: Annotated[int, Gt(0), MultipleOf(1024)] = variable(
        "LOCAL_GPU_ROW_TOKENS", 4096, "Tokens of one row on a local GPU; a longer sample is left out by ART."
    )
    memory_share: Annotated[float, Gt(0), Le(1)] = variable(
        "LOCAL_GPU_MEMORY_SHARE", 0.6, "What vLLM may take of a local GPU's memory."
    )
    minutes: Annotated[float, Gt(0), Le(10000)] = variable(
        "LOCAL_GPU_MINUTES", 120.0, "How long one training on a local GPU may take."
    )
