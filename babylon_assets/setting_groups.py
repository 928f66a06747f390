"""Settings of parts of the product that have many, as bases of `Settings`. Nothing is read or checked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from babylon_assets import setting_kinds as kinds
from babylon_assets.setting_kinds import declare as _declare
from babylon_assets.setting_kinds import declare_text as _declare_text


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """What `babylon serve` needs to know."""

    gateway_host: str = _declare("GATEWAY_HOST", kinds.address(), "127.0.0.1", "Where the gateway listens.")
    gateway_port: int = _declare("GATEWAY_PORT", kinds.whole(1, 65535), 8000, "Port of the gateway.")
    gateway_keys: Mapping[str, str] = _declare_text(
        "GATEWAY_KEYS",
        kinds.hashed_keys(),
        "",
        "Who may ask the gateway, by the hash of a key; absent: everybody on this machine.",
    )
    gateway_engine: str = _declare(
        "GATEWAY_ENGINE",
        kinds.choice("auto", "embedded", "wandb", "vllm", "openai"),
        "auto",
        "What answers behind the gateway: the embedded engine, or a server; auto picks as training does.",
    )
    gateway_upstream_url: str | None = _declare(
        "GATEWAY_UPSTREAM_URL",
        kinds.pattern(r"https?://\S+", "a URL such as http://127.0.0.1:8001/v1"),
        None,
        "That server's address; absent, for wandb: SERVERLESS_URL.",
    )
    gateway_upstream_key: str | None = _declare(
        "GATEWAY_UPSTREAM_KEY", kinds.text(), None, "That server's key; absent, for wandb: WANDB_API_KEY.", secret=True
    )
    gateway_upstream_seconds: float = _declare(
        "GATEWAY_UPSTREAM_SECONDS", kinds.number(0, 3600, above=True), 120.0, "How long that server may take to answer."
    )
    gateway_record: bool = _declare("GATEWAY_RECORD", kinds.switch(), True, "Record every answer in inference_calls.")
    gateway_batch: int = _declare(
        "GATEWAY_BATCH", kinds.whole(1, 1024), 32, "Answers that the embedded engine has under way at the same time."
    )
    gateway_queue: int = _declare(
        "GATEWAY_QUEUE", kinds.whole(1), 256, "Answers that may wait for a place; more are refused with 429."
    )
    gateway_policies: int = _declare(
        "GATEWAY_POLICIES", kinds.whole(2), 4, "Policies whose merged weights stay in memory."
    )
    gateway_body_bytes: int = _declare("GATEWAY_BODY_BYTES", kinds.whole(1024), 1_000_000, "Longest request.")
    gateway_answer_tokens: int = _declare(
        "GATEWAY_ANSWER_TOKENS", kinds.whole(1), 1024, "Longest answer that may be asked for, and the default."
    )
    gateway_key_concurrency: int = _declare(
        "GATEWAY_KEY_CONCURRENCY", kinds.whole(1), 128, "Answers that one key may be waiting for."
    )
    gateway_key_tokens_per_minute: int | None = _declare(
        "GATEWAY_KEY_TOKENS_PER_MINUTE",
        kinds.whole(1),
        None,
        "Tokens of prompts and answers that one key may use in a minute; absent: no limit.",
    )
    canary_share: float = _declare(
        "CANARY_SHARE",
        kinds.number(0, 1),
        0.0,
        "Share of the agents, by hash of their id, that the challenger answers.",
    )
    canary_policy: str | None = _declare(
        "CANARY_POLICY",
        kinds.pattern(r"\S+", "a policy such as babylon-agent@7"),
        None,
        "The challenger: a name that the gateway knows.",
    )
