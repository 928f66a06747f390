"""How the gateway serves policies."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import (
    LOWER_CASE,
    Address,
    Aliases,
    HashedKeys,
    HostNames,
    Origins,
    PolicyName,
    ServerUrl,
)


class GatewaySettings(Group):
    """How `babylon serve` answers, and whom."""

    host: Address = variable("GATEWAY_HOST", "127.0.0.1", "The address that the gateway listens on.")
    port: Annotated[int, Ge(1), Le(65535)] = variable("GATEWAY_PORT", 8000, "The port of the gateway.")
    keys: HashedKeys = variable(
        "GATEWAY_KEYS",
        "",
        "The hashes of the keys that the gateway accepts, such as `game:HASH`. With `anna:HASH:anna-*|bob` only this "
        "key speaks for the agents of these patterns. Without keys everybody on this machine may ask.",
    )
    hosts: HostNames = variable(
        "GATEWAY_HOSTS",
        "",
        "The names by which the gateway may be asked, beside addresses and localhost. Without it a gateway with keys "
        "answers to any name, and one without keys to no other.",
    )
    origins: Origins = variable(
        "GATEWAY_ORIGINS", "", "The web pages that may ask the gateway from a browser. Without it no foreign page may."
    )
    engine: Annotated[Literal["auto", "embedded", "wandb", "vllm", "openai"], LOWER_CASE] = variable(
        "GATEWAY_ENGINE",
        "auto",
        "What generates answers: the embedded engine, or a server. `auto` follows the training backend.",
    )
    upstream_url: ServerUrl | None = variable(
        "GATEWAY_UPSTREAM_URL",
        None,
        "The address of the server behind the gateway. vllm and openai need it; wandb has SERVERLESS_URL by default.",
    )
    upstream_key: str | None = variable(
        "GATEWAY_UPSTREAM_KEY",
        None,
        "The key of the server behind the gateway. For wandb the default is WANDB_API_KEY.",
        secret=True,
    )
    upstream_seconds: Annotated[float, Gt(0), Le(3600)] = variable(
        "GATEWAY_UPSTREAM_SECONDS", 120.0, "How many seconds the server behind the gateway may take to answer."
    )
    aliases: Aliases = variable(
        "MODEL_ALIASES",
        "",
        "The policies behind other names, such as `gpt-4.1=babylon-agent@7,claude-*=base`. Any other name means the "
        "promoted policy.",
    )
    strict_names: bool = variable(
        "GATEWAY_STRICT_NAMES", False, "Whether the gateway refuses a model's name that it does not know."
    )
    record: bool = variable("GATEWAY_RECORD", True, "Whether the gateway records every answer in inference_calls.")
    batch: Annotated[int, Ge(1), Le(1024)] = variable(
        "GATEWAY_BATCH", 32, "How many answers the embedded engine generates at the same time."
    )
    cache_mb: Annotated[int, Ge(1)] | None = variable(
        "GATEWAY_CACHE_MB",
        None,
        "How many megabytes the keys and values of long conversations may take. Further ones wait, but the first of "
        "each key does not. Without it 512 on a CPU, and a quarter of a GPU's memory.",
    )
    queue: Annotated[int, Ge(1)] = variable(
        "GATEWAY_QUEUE", 256, "How many requests may wait for a place. The gateway refuses more with 429."
    )
    policies: Annotated[int, Ge(2)] = variable(
        "GATEWAY_POLICIES", 4, "How many policies keep their merged weights in memory."
    )
    answer_tokens: Annotated[int, Ge(1)] = variable(
        "GATEWAY_ANSWER_TOKENS",
        1024,
        "The longest answer in tokens, and the default length. A request for more gets this.",
    )
    address_connections: Annotated[int, Ge(1)] = variable(
        "GATEWAY_ADDRESS_CONNECTIONS",
        512,
        "How many connections one address may have open. Give a proxy in front more.",
    )
    key_concurrency: Annotated[int, Ge(1)] = variable(
        "GATEWAY_KEY_CONCURRENCY", 128, "How many answers one key may wait for at the same time."
    )
    key_tokens_per_minute: Annotated[int, Ge(1)] | None = variable(
        "GATEWAY_KEY_TOKENS_PER_MINUTE",
        None,
        "How many tokens of prompts and answers one key may use in a minute. Without it there is no limit.",
    )
    canary_share: Annotated[float, Ge(0), Le(1)] = variable(
        "CANARY_SHARE", 0.0, "The share of agents, by hash of their id, that the challenger answers."
    )
    canary_policy: PolicyName | None = variable(
        "CANARY_POLICY", None, "The challenger: a policy that the gateway knows."
    )
