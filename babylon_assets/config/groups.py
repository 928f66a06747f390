"""Settings of parts of the product that have many, as bases of `Settings`. Nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from babylon_assets.config import kinds
from babylon_assets.config.kinds import declare as _declare
from babylon_assets.config.kinds import declare_text as _declare_text
from babylon_assets.domain.errors import PermanentError, SettingsError
from babylon_assets.domain.windows import WindowGrid


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


@dataclass(frozen=True, kw_only=True)
class JudgingSettings:
    """How checkpoints are evaluated, and what the gate asks of them."""

    gate: bool = _declare(
        "GATE", kinds.switch(), True, "Judge every checkpoint before it is served and trained from; false promotes all."
    )
    gate_confidence: float = _declare(
        "GATE_CONFIDENCE",
        kinds.number(0.5, 0.9999),
        0.95,
        "Confidence of the gate's intervals; a checkpoint is worse when the whole interval is below a bound.",
    )
    gate_margin: float = _declare(
        "GATE_MARGIN", kinds.number(0, 10), 0.0, "Market reward that a checkpoint may lose against the live one."
    )
    gate_decline: float = _declare(
        "GATE_DECLINE", kinds.number(0, 10), 0.01, "The same against the best that was ever promoted."
    )
    gate_valid_drop: float = _declare(
        "GATE_VALID_DROP", kinds.number(0, 1), 0.02, "Share of valid actions that it may lose against either."
    )
    gate_replay_margin: float = _declare(
        "GATE_REPLAY_MARGIN",
        kinds.number(0, 100),
        0.1,
        "Nats by which its preference for better held-out answers may fall.",
    )
    gate_quarantined: float = _declare(
        "GATE_QUARANTINED", kinds.number(0, 1), 0.5, "Largest share of corrupt rows in the window it was trained on."
    )
    evaluation_seeds: int = _declare(
        "EVALUATION_SEEDS",
        kinds.whole(8, 100_000),
        48,
        "Held-out markets of 12 boards that every checkpoint is examined on.",
    )
    evaluate_hosted: bool = _declare(
        "EVALUATE_HOSTED",
        kinds.switch(),
        True,
        "Examine checkpoints of the hosted service through its inference, which it charges for: 576 short answers.",
    )
    replay_effective_samples: float = _declare(
        "REPLAY_EFFECTIVE_SAMPLES",
        kinds.number(1, 1e6),
        16.0,
        "Least effective sample size of an off-policy estimate; below it none is shown.",
    )
    auto_rollback: bool = _declare(
        "AUTO_ROLLBACK", kinds.switch(), False, "Go back to the policy before when the live one leaves its band."
    )
    auto_rollback_valid_drop: float = _declare(
        "AUTO_ROLLBACK_VALID_DROP", kinds.number(0, 1), 0.1, "How far the live share of valid actions may fall."
    )
    auto_rollback_reward_drop: float = _declare(
        "AUTO_ROLLBACK_REWARD_DROP", kinds.number(0, 10), 0.3, "How far the live mean reward may fall."
    )
    write_trained_models: bool = _declare(
        "WRITE_TRAINED_MODELS",
        kinds.switch(),
        False,
        "Write promotions into the game's trained_models, and mark the trajectories that were trained on.",
    )


@dataclass(frozen=True, kw_only=True)
class AutomationSettings:
    """What runs the line by itself, and what it leaves for people to see."""

    automation: bool = _declare(
        "AUTOMATION",
        kinds.switch(),
        True,
        "Let `babylon up` run the line for every closed window; false waits to be told.",
    )
    window_grace_minutes: int = _declare(
        "WINDOW_GRACE_MINUTES",
        kinds.whole(0, 1440),
        5,
        "How long after its end a window's rows may still come; automation waits for it, a check says so.",
    )
    late_data: str = _declare(
        "LATE_DATA",
        kinds.choice("carry", "retrain", "ignore"),
        "carry",
        "A trained window whose data changed is scored and frozen again; carry: its new or changed samples join the "
        "next window; retrain: it is trained again on a branch.",
    )
    train_requests: bool = _declare(
        "TRAIN_REQUESTS",
        kinds.switch(),
        False,
        "Train the windows that the game asks for in training_batches; needs SELECT and UPDATE on that table.",
    )
    nightly_seeds: int = _declare(
        "NIGHTLY_SEEDS",
        kinds.whole(8, 100_000),
        192,
        "Held-out markets of 12 boards that the live policy is examined on in the night after it was promoted.",
    )
    keep_checkpoints: int | None = _declare(
        "KEEP_CHECKPOINTS",
        kinds.whole(1),
        None,
        "Every night, remove the weights that `babylon prune --keep` of so many would; absent: nothing is removed.",
    )
    keep_run_logs_days: int = _declare(
        "KEEP_RUN_LOGS_DAYS",
        kinds.whole(1, 36_500),
        30,
        "Days for which Dagster's tables keep what a run said; what it made, checked and why it failed stays.",
    )
    show_samples: bool = _declare(
        "SHOW_SAMPLES",
        kinds.switch(),
        True,
        "Show a dataset's best and worst samples on its page, texts included; Dagster's tables keep what was shown.",
    )
    failure_webhook: str | None = _declare(
        "FAILURE_WEBHOOK",
        kinds.pattern(r"https?://\S+", "a URL such as https://hooks.example.com/babylon"),
        None,
        "Where a failed run is told, as a POST of JSON with `text`, `run`, `windows` and `reason`.",
        secret=True,
    )


@dataclass(frozen=True, kw_only=True)
class RulerSettings:
    """What the scorer `ruler`, a judge that compares the answers of a group, needs to know."""

    ruler_model: str | None = _declare(
        "RULER_MODEL",
        kinds.pattern(r"[\w.-]+/\S+", "provider/model as litellm names it, such as openai/gpt-4.1"),
        None,
        "Model that judges the answers of a group against each other; absent: nobody judges.",
    )
    ruler_url: str | None = _declare(
        "RULER_URL",
        kinds.pattern(r"https?://\S+", "a URL such as http://127.0.0.1:8000/v1"),
        None,
        "Where the judge answers, such as our own gateway; absent: where litellm finds its provider.",
    )
    ruler_api_key: str | None = _declare(
        "RULER_API_KEY",
        kinds.text(),
        None,
        "Key of the judge; absent: what litellm finds for its provider.",
        secret=True,
    )
    ruler_rubric: str | None = _declare(
        "RULER_RUBRIC", kinds.text(), None, "What the judge goes by; absent: ART's own rubric."
    )
    ruler_json_schema: bool = _declare(
        "RULER_JSON_SCHEMA",
        kinds.switch(),
        True,
        "Send the judge the JSON schema of its answer; false, as for our own gateway: ask for the form in words.",
    )
    ruler_group_size: int = _declare(
        "RULER_GROUP_SIZE", kinds.whole(2, 64), 16, "Of a larger group, so many answers are judged in one request."
    )
    ruler_max_attempts: int = _declare(
        "RULER_MAX_ATTEMPTS",
        kinds.whole(1, 100),
        9,
        "How often a judge is asked about one group, over all runs; three times at most in one.",
    )
    ruler_timeout_seconds: int = _declare(
        "RULER_TIMEOUT_SECONDS", kinds.whole(1, 3600), 120, "How long one request to the judge may take."
    )
    ruler_usd_per_million_tokens: float | None = _declare(
        "RULER_USD_PER_MILLION_TOKENS",
        kinds.number(0, 1e6),
        None,
        "What a million tokens of the judge cost, where litellm does not know.",
    )
    write_reward_judgments: bool = _declare(
        "WRITE_REWARD_JUDGMENTS",
        kinds.switch(),
        False,
        "Write the judge's verdicts into the game's reward_judgments as well.",
    )


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """How the simulated game is played."""

    simulation_seed: int = _declare("SIMULATION_SEED", kinds.whole(0), 0, "Seed of the simulated game.")
    simulation_rooms: int = _declare(
        "SIMULATION_ROOMS", kinds.whole(1), 4, "Markets that the simulated game plays side by side."
    )
    simulation_agents_per_room: int = _declare(
        "SIMULATION_AGENTS_PER_ROOM", kinds.whole(2), 8, "Agents that see the same board."
    )
    simulation_ticks: int = _declare("SIMULATION_TICKS", kinds.whole(1, 3600), 16, "Ticks per room and window.")
    simulation_key: str | None = _declare(
        "SIMULATION_KEY", kinds.text(), None, "Key of the simulated players, where the gateway wants one.", secret=True
    )


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How time is cut into windows, and where they begin."""

    window_minutes: int = _declare(
        "WINDOW_MINUTES", kinds.window_minutes(), 60, "Length of a window; it stays what a ledger was begun with."
    )
    window_start: str = _declare(
        "WINDOWS_FROM", kinds.window(), "2026-10-01T00:00", "First window, hence first partition."
    )
    window_id: str | None = _declare("WINDOW_ID", kinds.window(), None, "The window of MODE=single.")

    @property
    def windows(self) -> WindowGrid:
        """How time is cut into windows."""
        return WindowGrid.of_minutes(self.window_minutes)

    def check_windows(self) -> None:
        """Check that the windows of the settings are of WINDOW_MINUTES.

        Raises:
            SettingsError: one is not; it says what to write.
        """
        for variable, window in (("WINDOWS_FROM", self.window_start), ("WINDOW_ID", self.window_id)):
            try:
                if window is not None:
                    self.windows.parse(window)
            except PermanentError as error:
                raise SettingsError(f"{variable}: {error}") from None
