"""Settings: every knob of the product, declared once, read once, validated, frozen.

The only place that reads the environment and `.env`. Each setting is one line of `Settings`: its variable, its
default, what is allowed and what it means; the documentation and `babylon doctor` are printed from the same lines.
What a setting leads to is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.config import kinds
from babylon_assets.config.groups import (
    AutomationSettings,
    GatewaySettings,
    JudgingSettings,
    RulerSettings,
    SimulationSettings,
)
from babylon_assets.config.kinds import Kind
from babylon_assets.config.kinds import declare as _declare
from babylon_assets.config.kinds import declare_text as _declare_text
from babylon_assets.domain.errors import SettingsError

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting as documentation and `babylon doctor` show it; `default` is text, empty for "not set"."""

    field: str
    variable: str
    default: str
    allowed: str
    doc: str
    secret: bool


@dataclass(frozen=True, kw_only=True)
class Settings(SimulationSettings, RulerSettings, AutomationSettings, JudgingSettings, GatewaySettings):
    """All settings. Built by `load_settings`; tests may build it directly, the same checks apply.

    Raises:
        SettingsError: when a value is not allowed.
    """

    database_url: str | None = _declare(
        "DATABASE_URL",
        kinds.postgres_url(),
        None,
        "The game's PostgreSQL; absent: an embedded one in the home folder.",
        secret=True,
    )
    dagster_database_url: str | None = _declare(
        "DAGSTER_DATABASE_URL",
        kinds.postgres_url(),
        None,
        "Dagster's own database; absent: `<database>_dagster` on the same server.",
        secret=True,
    )
    home: Path = _declare_text(  # noqa: RUF009 - a field, made per object
        "BABYLON_HOME", kinds.folder(), ".babylon", "Where checkpoints, the embedded database and logs live."
    )
    wandb_api_key: str | None = _declare(
        "WANDB_API_KEY",
        kinds.text(),
        None,
        "Key of W&B; with it training can run on the hosted service.",
        secret=True,
    )
    wandb_project: str = _declare("WANDB_PROJECT", kinds.text(), "babylon", "Project that W&B files the runs under.")
    train_rl_local: bool = _declare("TRAIN_RL_LOCAL", kinds.switch(), True, "false stops every window before training.")
    base_model: str | None = _declare(
        "BASE_MODEL",
        kinds.text(),
        None,
        "Model to start from, a folder or hub name; absent: the project's own small one.",
    )
    model_name: str = _declare(
        "BABYLON_MODEL",
        kinds.pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, '.', '_' and '-'"),
        "babylon-agent",
        "Name of the chain of checkpoints and of the policies in it.",
    )
    backend: str = _declare(
        "TRAINING_BACKEND",
        kinds.registered("babylon_assets.training_backends", "auto", "embedded", "serverless", "local_gpu"),
        "auto",
        "Where training runs; auto picks by what is there.",
    )
    serverless_url: str = _declare(
        "SERVERLESS_URL",
        kinds.pattern(r"https?://\S+", "a URL such as https://api.training.wandb.ai/v1"),
        "https://api.training.wandb.ai/v1",
        "Where the hosted service answers.",
    )
    serverless_learning_rate: float = _declare(
        "SERVERLESS_LEARNING_RATE",
        kinds.number(0, 1, above=True),
        5e-6,
        "Step size of the hosted service's optimizer; its base models are far larger than the embedded one.",
    )
    serverless_timeout_seconds: int = _declare(
        "SERVERLESS_TIMEOUT_SECONDS", kinds.whole(1), 120, "How long one request to the hosted service may take."
    )
    serverless_wait_minutes: float = _declare(
        "SERVERLESS_WAIT_MINUTES",
        kinds.number(0, 10000, above=True),
        60.0,
        "How long a hosted job may be silent before the run gives up waiting; the next run attaches to it again.",
    )
    serverless_usd_per_million_tokens: float = _declare(
        "SERVERLESS_USD_PER_MILLION_TOKENS",
        kinds.number(0, 1e6),
        0.0,
        "What a million tokens sent to the hosted service cost, for estimates, the ledger and the cap.",
    )
    serverless_daily_usd: float | None = _declare(
        "SERVERLESS_DAILY_USD",
        kinds.number(0, 1e9),
        None,
        "Hosted jobs that would spend more than this in one UTC day are not submitted; absent: no cap.",
    )
    local_gpu_learning_rate: float = _declare(
        "LOCAL_GPU_LEARNING_RATE",
        kinds.number(0, 1, above=True),
        5e-6,
        "Step size on a local GPU, whose base models are far larger than the embedded one.",
    )
    local_gpu_row_tokens: int = _declare(
        "LOCAL_GPU_ROW_TOKENS",
        kinds.multiple(1024),
        4096,
        "Tokens of one row on a local GPU; a longer sample is left out by ART.",
    )
    local_gpu_memory_share: float = _declare(
        "LOCAL_GPU_MEMORY_SHARE", kinds.number(0, 1, above=True), 0.6, "What vLLM may take of a local GPU's memory."
    )
    local_gpu_minutes: float = _declare(
        "LOCAL_GPU_MINUTES", kinds.number(0, 10000, above=True), 120.0, "How long one training on a local GPU may take."
    )
    min_agents_per_window: int = _declare(
        "MIN_AGENTS_PER_WINDOW", kinds.whole(1), 3, "A window with fewer agents is thin and is not trained on."
    )
    min_samples_per_window: int = _declare(
        "MIN_SAMPLES_PER_WINDOW",
        kinds.whole(1),
        16,
        "A window with fewer trainable samples is thin and is not trained on.",
    )
    max_policy_lag: int = _declare(
        "MAX_POLICY_LAG",
        kinds.whole(0),
        8,
        "How many checkpoints behind the head the policy of a trained answer may be.",
    )
    reward_weights: Mapping[str, float] = _declare_text(
        "REWARD_WEIGHTS",
        kinds.weights(),
        "outcome=1.0,heuristic=0.1",
        "Weight of each scorer in a sample's reward.",
    )
    scorers: tuple[str, ...] = _declare(
        "SCORERS", kinds.import_paths(), (), "Scorers of your own, that REWARD_WEIGHTS may name as well."
    )
    invalid_action_reward: float = _declare(
        "INVALID_ACTION_REWARD",
        kinds.number(-1, 1),
        -0.5,
        "Outcome score of an action that could not be carried out.",
    )
    moment_seconds: int = _declare(
        "MOMENT_SECONDS", kinds.whole(1, 3600), 30, "Steps in the same slot of so many seconds are compared."
    )
    group_by: str = _declare(
        "GROUP_BY",
        kinds.choice("moment", "window", "agent"),
        "moment",
        "Whose answers are compared: of the same moment, of the whole window, or of the same agent.",
    )
    held_out_share: float = _declare(
        "HELD_OUT_SHARE", kinds.number(0, 0.9), 0.1, "Share of the agents, by hash of their id, never trained on."
    )
    max_samples_per_window: int = _declare(
        "MAX_SAMPLES_PER_WINDOW", kinds.whole(1), 50_000, "Of more, whole groups are drawn by TRAIN_SEED."
    )
    max_tokens_per_window: int = _declare(
        "MAX_TOKENS_PER_WINDOW", kinds.whole(1), 10_000_000, "The same for the tokens of the answers trained on."
    )
    perp_horizon_minutes: int = _declare(
        "PERP_HORIZON_MINUTES",
        kinds.whole(1),
        60,
        "When an open perpetual position is valued, in minutes after its trade.",
    )
    perp_full_scale_percent: float = _declare(
        "PERP_FULL_SCALE_PERCENT",
        kinds.number(0, 1000, above=True),
        10.0,
        "Price change that counts as a full win or loss.",
    )
    include_test_users: bool = _declare(
        "INCLUDE_TEST_USERS", kinds.switch(), False, "Train on test users' agents as well."
    )
    include_banned_users: bool = _declare(
        "INCLUDE_BANNED_USERS", kinds.switch(), False, "Train on banned users' agents as well."
    )
    learning_rate: float = _declare(
        "LEARNING_RATE", kinds.number(0, 1, above=True), 1.5e-3, "Step size of the optimizer."
    )
    lora_rank: int = _declare("LORA_RANK", kinds.whole(1, 256), 32, "Rank of the trained adapter.")
    gradient_tokens: int = _declare(
        "GRADIENT_TOKENS", kinds.whole(256), 1024, "Tokens of one packed row; a longer answer gets a longer one."
    )
    rows_per_step: int = _declare(
        "ROWS_PER_STEP", kinds.whole(1), 3, "Packed rows that one optimizer step averages over."
    )
    clip_epsilon: float = _declare(
        "CLIP_EPSILON",
        kinds.number(0, 1, above=True),
        0.2,
        "How far a probability ratio may move before its gradient is cut.",
    )
    max_kl: float = _declare(
        "MAX_KL",
        kinds.number(0, 100, above=True),
        0.005,
        "A step that moves the policy further than this from the one that answered, in nats a token, is undone.",
    )
    max_grad_norm: float = _declare(
        "MAX_GRAD_NORM", kinds.number(0, 1000, above=True), 0.2, "Gradient norm is clipped to this."
    )
    train_dtype: str = _declare(
        "TRAIN_DTYPE",
        kinds.choice("auto", "float32", "bfloat16"),
        "auto",
        "Numbers that the embedded trainer computes with; auto: bfloat16 for a large model where that is fast.",
    )
    train_seed: int = _declare("TRAIN_SEED", kinds.whole(0), 0, "Seed of training.")
    threads: int = _declare("TRAIN_THREADS", kinds.whole(1), 1, "CPU threads of training and of the embedded engine.")
    window_start: str = _declare(
        "WINDOWS_FROM", kinds.window(), "2026-10-01T00:00", "First window, hence first partition."
    )
    dagster_port: int = _declare("DAGSTER_PORT", kinds.whole(1, 65535), 3000, "Port of the Dagster UI on loopback.")
    log_level: str = _declare(
        "LOG_LEVEL",
        kinds.choice("DEBUG", "INFO", "WARNING", "ERROR", fold=str.upper),
        "INFO",
        "How much is logged.",
    )
    mode: str | None = _declare(
        "MODE",
        kinds.choice("list", "single", "continuous"),
        None,
        "What `python -m babylon_assets` does without arguments.",
    )
    window_id: str | None = _declare("WINDOW_ID", kinds.window(), None, "The window of MODE=single.")

    def __post_init__(self) -> None:
        for item in _fields():
            value = getattr(self, item.name)
            if value is not None:
                object.__setattr__(self, item.name, _parsed(item, item.metadata["kind"].render(value)))


def _fields() -> list[dataclasses.Field[Any]]:
    """Every setting; those of the groups come after what is declared here."""
    groups = (RulerSettings, AutomationSettings, JudgingSettings, GatewaySettings)
    inherited = {item.name for group in groups for item in dataclasses.fields(group)}
    return sorted(dataclasses.fields(Settings), key=lambda item: item.name in inherited)


def _parsed(item: dataclasses.Field[Any], text: str) -> Any:
    kind: Kind = item.metadata["kind"]
    try:
        return kind.parse(text)
    except ValueError:
        shown = HIDDEN if item.metadata["secret"] else repr(text)
        raise SettingsError(f"{item.metadata['variable']} is {shown}; set it to {kind.allowed}") from None


def load_settings(env: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings from `env` (default: the process's environment); what it lacks, from `env_file`.

    An empty value counts as absent. A missing file is no error; None reads no file.

    Raises:
        SettingsError: naming the variable, its value (never a secret) and what is allowed.
    """
    from dotenv import dotenv_values

    env = os.environ if env is None else env
    values: dict[str, str | None] = {}
    if env_file is not None and env_file.is_file():
        values.update(dotenv_values(env_file, interpolate=False))
    values.update({name: text for name, text in env.items() if text.strip()})
    given: dict[str, Any] = {}
    for item in _fields():
        text = (values.get(item.metadata["variable"]) or "").strip()
        if text:
            given[item.name] = _parsed(item, text)
    return Settings(**given)


def declarations() -> list[Declaration]:
    """Every setting in the order of `Settings`, for documentation, `babylon doctor` and tests."""
    return [
        Declaration(
            field=item.name,
            variable=item.metadata["variable"],
            default=item.metadata["default"],
            allowed=item.metadata["kind"].allowed,
            doc=item.metadata["doc"],
            secret=item.metadata["secret"],
        )
        for item in _fields()
    ]


def printable(settings: Settings) -> dict[str, str]:
    """Variable to value as text, fit to be printed: secrets hidden, empty for what is not set."""
    return {name: HIDDEN if secret and text else text for name, (text, secret) in _rendered(settings).items()}


def secrets_of(settings: Settings) -> list[str]:
    """Every text that must never be shown: the secret settings, and the password of an address among them."""
    texts = [text for text, secret in _rendered(settings).values() if secret and text]
    passwords = (re.match(r"\w+://[^/@]*:([^/@]+)@", text) for text in texts)
    return [*texts, *(found[1] for found in passwords if found)]


def subprocess_environment(settings: Settings, dagster_url: str) -> dict[str, str]:
    """The environment of a child process that must see the very same settings, whatever its working folder.

    Args:
        dagster_url: SQLAlchemy URL of Dagster's storage (`Database.dagster_url`), for dagster.yaml.

    Returns:
        This process's environment with every setting written out, DAGSTER_HOME at `<home>/dagster` and
        BABYLON_DAGSTER_URL.
    """
    environment = dict(os.environ)
    for name, (text, _) in _rendered(settings).items():
        environment.pop(name, None)
        if text:
            environment[name] = text
    environment["DAGSTER_HOME"] = str(settings.home / "dagster")
    environment["BABYLON_DAGSTER_URL"] = dagster_url
    environment.setdefault(*_EVENT_BATCHES)
    return environment


def local_gpu_environment() -> dict[str, str]:
    """The environment of the process that trains on a local GPU: this one's, without the key of W&B and its logging."""
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    return {**environment, "WANDB_MODE": "disabled", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


#: Read by Dagster: what a run plans to make, a row per partition, is written this many rows at a time.
_EVENT_BATCHES = ("DAGSTER_EVENT_BATCH_SIZE", "1000")


def write_events_in_batches() -> None:
    """Let Dagster in this process write many planned partitions as one statement; call before a run is made."""
    os.environ.setdefault(*_EVENT_BATCHES)


def _rendered(settings: Settings) -> dict[str, tuple[str, bool]]:
    """Variable to (value as text, whether it is a secret)."""
    rendered = {}
    for item in _fields():
        value = getattr(settings, item.name)
        text = "" if value is None else item.metadata["kind"].render(value)
        rendered[item.metadata["variable"]] = (text, item.metadata["secret"])
    return rendered


def prepare_libraries(settings: Settings) -> None:
    """Tell the libraries of training what they read from the environment; call before any of them is imported.

    litellm must not fetch a price list at import, W&B must not ask for a login where there is no key, a local model
    needs no hub, and the tokenizers' own threads only stand in the way of those of training.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if settings.wandb_api_key is None:
        os.environ.setdefault("WANDB_MODE", "disabled")
    if settings.base_model is None or Path(settings.base_model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
