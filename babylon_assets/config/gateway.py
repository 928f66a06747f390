"""How the gateway serves policies."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import LOWER_CASE, Address, HashedKeys, PolicyName, ServerUrl


class GatewaySettings(Group):
    """How `babylon serve` answers, and whom."""

    host: Address = variable("GATEWAY_HOST", "127.0.0.1", "Where the gateway listens.")
    port: Annotated[int, Ge(1), Le(65535)] = variable("GATEWAY_PORT", 8000, "Port of the gateway.")
    keys: HashedKeys = variable(
        "GATEWAY_KEYS", "", "Who may ask the gateway, by the hash of a key; absent: everybody on this machine."
    )
    engine: Annotated[Literal["auto", "embedded", "wandb", "vllm", "openai"], LOWER_CASE] = variable(
        "GATEWAY_ENGINE",
        "auto",
        "What answers behind the gateway: the embedded engine, or a server; auto picks as training does.",
    )
    upstream_url: ServerUrl | None = variable(
        "GATEWAY_UPSTREAM_URL", None, "That server's address; absent, for wandb: SERVERLESS_URL."
    )
    upstream_key: str | None = variable(
        "GATEWAY_UPSTREAM_KEY", None, "That server's key; absent, for wandb: WANDB_API_KEY.", secret=True
    )
    upstream_seconds: Annotated[float, Gt(0), Le(3600)] = variable(
        "GATEWAY_UPSTREAM_SECONDS", 120.0, "How long that server may take to answer."
    )
    record: bool = variable("GATEWAY_RECORD", True, "Record every answer in inference_calls.")
    batch: Annotated[int, Ge(1), Le(1024)] = variable(
        "GATEWAY_BATCH", 32, "Answers that the embedded engine has under way at the same time."
    )
    queue: Annotated[int, Ge(1)] = variable(
        "GATEWAY_QUEUE", 256, "Answers that may wait for a place; more are refused with 429."
    )
    policies: Annotated[int, Ge(2)] = variable("GATEWAY_POLICIES", 4, "Policies whose merged weights stay in memory.")
    body_bytes: Annotated[int, Ge(1024)] = variable("GATEWAY_BODY_BYTES", 1_000_000, "Longest request.")
    answer_tokens: Annotated[int, Ge(1)] = variable(
        "GATEWAY_ANSWER_TOKENS", 1024, "Longest answer that may be asked for, and the default."
    )
    key_concurrency: Annotated[int, Ge(1)] = variable(
        "GATEWAY_KEY_CONCURRENCY", 128, "Answers that one key may be waiting for."
    )
    key_tokens_per_minute: Annotated[int, Ge(1)] | None = variable(
        "GATEWAY_KEY_TOKENS_PER_MINUTE",
        None,
        "Tokens of prompts and answers that one key may use in a minute; absent: no limit.",
    )
    canary_share: Annotated[float, Ge(0), Le(1)] = variable(
        "CANARY_SHARE", 0.0, "Share of the agents, by hash of their id, that the challenger answers."
    )
    canary_policy: PolicyName | None = variable("CANARY_POLICY", None, "The challenger: a name that the gateway knows.")
