"""Settings: every knob of the product, in groups, declared once, read once, checked, frozen.

The only place that reads the environment and `.env`. Each setting is a field of a group: its variable, its default,
what is allowed and what it means; the documentation and `babylon doctor` are printed from the same fields.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, cast

from annotated_types import Ge, Le
from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from babylon_assets.config.automation import AutomationSettings
from babylon_assets.config.databases import DatabaseSettings
from babylon_assets.config.datasets import DatasetSettings
from babylon_assets.config.env_file import HOME, explain_unknown, find_env_file, read_env_file
from babylon_assets.config.gate import GateSettings
from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.config.group import RULES, Group, allowed_values, is_secret, variable, variable_name, write_value
from babylon_assets.config.library_bars import hide_bars
from babylon_assets.config.network import HUB, in_the_clear, open_library_urls, reach_loopback_directly
from babylon_assets.config.scoring import JudgeSettings, RewardSettings
from babylon_assets.config.simulation import SimulationSettings
from babylon_assets.config.training import EmbeddedSettings, LocalGpuSettings, ServerlessSettings, TrainingSettings
from babylon_assets.config.values import (
    LOWER_CASE,
    UPPER_CASE,
    ChainName,
    Folder,
    HashedKeys,
    HostNames,
    WindowId,
    WindowMinutes,
)
from babylon_assets.domain.errors import InvalidSetting, PermanentError, SettingsError
from babylon_assets.domain.windows import WindowGrid

HIDDEN = "***"
_HOME = "BABYLON_HOME"


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting as documentation and `babylon doctor` show it.

    `group` and `default` are text, empty for a setting of no group and for "not set".
    """

    group: str
    variable: str
    default: str
    allowed: str
    doc: str
    secret: bool


class Settings(BaseSettings):
    """All settings. `load_settings` reads them; built directly they read nothing, and the same checks apply.

    A setting of a group is passed as the group, `Settings(embedded=EmbeddedSettings(lora_rank=8))`, or by its variable
    in lower case, `Settings(lora_rank=8)`.

    Raises:
        InvalidSetting: naming every value that is not allowed.
    """

    model_config = SettingsConfigDict(**cast(SettingsConfigDict, RULES))

    home: Folder = variable(_HOME, HOME, "The folder that keeps checkpoints, logs and the embedded database.")
    model_name: ChainName = variable(
        "BABYLON_MODEL",
        "babylon-agent",
        "The name of the chain of checkpoints. A policy is called after it, such as babylon-agent@7.",
    )
    window_minutes: WindowMinutes = variable(
        "WINDOW_MINUTES", 60, "The length of a window in minutes. A ledger keeps the length that it was begun with."
    )
    window_start: WindowId = variable(
        "WINDOWS_FROM",
        "2026-10-01T00:00",
        "The first window, and so the first partition in Dagster. Without it `babylon up` begins with the record.",
    )
    dagster_port: Annotated[int, Ge(1), Le(65535)] = variable(
        "DAGSTER_PORT", 3000, "The port of the Dagster UI on loopback."
    )
    dagster_keys: HashedKeys = variable(
        "DAGSTER_KEYS",
        "",
        "The hashes of the keys that the Dagster UI asks for, such as `anna:HASH`. A browser asks for name and key.",
    )
    dagster_hosts: HostNames = variable(
        "DAGSTER_HOSTS", "", "The names by which the Dagster UI may be asked, beside addresses and localhost."
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UPPER_CASE] = variable(
        "LOG_LEVEL", "INFO", "The least severe message that is logged."
    )
    keys_over_http: bool = variable(
        "KEYS_OVER_HTTP",
        False,
        "Whether keys may be sent to other machines over http, where whoever is on the way reads them.",
    )
    mode: Annotated[Literal["list", "single", "continuous"], LOWER_CASE] | None = variable(
        "MODE", None, "What `babylon` runs without arguments: `windows`, `train` with WINDOW_ID, or `train --follow`."
    )
    window_id: WindowId | None = variable("WINDOW_ID", None, "The window that MODE=single trains.")
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    embedded: EmbeddedSettings = Field(default_factory=EmbeddedSettings)
    serverless: ServerlessSettings = Field(default_factory=ServerlessSettings)
    local_gpu: LocalGpuSettings = Field(default_factory=LocalGpuSettings)
    datasets: DatasetSettings = Field(default_factory=DatasetSettings)
    rewards: RewardSettings = Field(default_factory=RewardSettings)
    judge: JudgeSettings = Field(default_factory=JudgeSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    automation: AutomationSettings = Field(default_factory=AutomationSettings)
    simulation: SimulationSettings = Field(default_factory=SimulationSettings)

    def __init__(self, **values: Any) -> None:
        refused = ""
        try:
            super().__init__(**_by_group(values))
        except ValidationError as error:
            refused = "\n".join(_explain_refusal(fault["loc"], fault.get("input")) for fault in error.errors())
        if refused:  # raised out here, so that no secret hangs on as the cause
            raise InvalidSetting(refused)
        self._check_windows()
        self._check_keys()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @property
    def windows(self) -> WindowGrid:
        """How time is cut into windows."""
        return WindowGrid.of_minutes(self.window_minutes)

    @property
    def begins_with_the_record(self) -> bool:
        """Whether nobody set WINDOWS_FROM, so that the first partition is the first window of the record."""
        return self.window_start == str(type(self).model_fields["window_start"].default)

    def _check_windows(self) -> None:
        """Check that the windows of the settings are of WINDOW_MINUTES."""
        for name, window in (("WINDOWS_FROM", self.window_start), ("WINDOW_ID", self.window_id)):
            try:
                if window is not None:
                    self.windows.parse(window)
            except PermanentError as error:
                raise InvalidSetting(f"{name}: {error}") from None

    def _check_keys(self) -> None:
        """Check that no key is sent in the clear to another machine; a webhook's address is a key itself."""
        hosted = self.training.wandb_api_key
        upstream_key = self.gateway.upstream_key or (hosted if self.gateway.engine in ("auto", "wandb") else None)
        sent = (
            ("SERVERLESS_URL", self.serverless.url, hosted),
            ("GATEWAY_UPSTREAM_URL", self.gateway.upstream_url, upstream_key),
            ("RULER_URL", self.judge.url, self.judge.api_key),
            ("FAILURE_WEBHOOK", self.automation.failure_webhook, self.automation.failure_webhook),
        )
        for name, url, key in sent:
            if url and key and in_the_clear(url) and not self.keys_over_http:
                raise SettingsError(_IN_THE_CLEAR.format(name))

    def replace(self, **changes: Any) -> Settings:
        """These settings with some changed, which are named as at construction."""
        given = _by_group(changes)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Group) and isinstance(given.get(name), Mapping):
                given[name] = {**_fields(value), **given[name]}
            else:
                given.setdefault(name, value)
        return Settings(**given)

    def __hash__(self) -> int:
        return hash(tuple(text for text, _ in _rendered(self).values()))


_IN_THE_CLEAR = (
    "{} is http to another machine, and a key would be sent there for everybody on the way to read; "
    "write https, or set KEYS_OVER_HTTP=true where the network between is trusted"
)


def _groups() -> dict[str, type[Group]]:
    fields = Settings.model_fields.items()
    return {name: field.annotation for name, field in fields if _is_group(field.annotation)}


def _is_group(annotation: Any) -> TypeGuard[type[Group]]:
    return isinstance(annotation, type) and issubclass(annotation, Group)


@cache
def _places() -> dict[str, tuple[str, str, FieldInfo]]:
    """Where each variable is kept: its group (empty for none), its name there and its field."""
    own = {
        variable_name(field): ("", name, field)
        for name, field in Settings.model_fields.items()
        if name not in _groups()
    }
    grouped = {
        variable_name(field): (group, name, field)
        for group, kind in _groups().items()
        for name, field in kind.model_fields.items()
    }
    return own | grouped


def _by_group(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each that is named by its variable, in either case, moved into its group.

    GATE and AUTOMATION are variables, and groups are called so: there the value says which is meant.
    """
    whole: dict[str, Any] = {}
    single: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, field, _ = _places().get(name.upper(), ("", name, None))
        if name in _groups() and isinstance(value, Group | Mapping):
            whole[name] = value
        elif group:
            single.setdefault(group, {})[field] = value
        else:
            whole[field] = value
    return whole | {group: {**_fields(whole.get(group, {})), **given} for group, given in single.items()}


def _fields(group: Group | Mapping[str, Any]) -> Mapping[str, Any]:
    return vars(group) if isinstance(group, Group) else group


def _explain_refusal(location: tuple[int | str, ...], value: Any) -> str:
    """A sentence about one value that pydantic refused at `location`: a group and a field, or a field alone."""
    name = str(location[-1])
    for name_of, (group, field, info) in _places().items():
        if name in (name_of, field) and (group or name) == location[0]:
            shown = HIDDEN if is_secret(info) else repr(write_value(info, value))
            return f"{name_of} is {shown}; set it to {allowed_values(info)}"
    return f"there is no setting {'.'.join(map(str, location))}"


class VariableSource(PydanticBaseSettingsSource):
    """The texts of the settings, each read from a variable of its own; an empty text counts as absent."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self._texts = texts

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._texts.get(variable_name(field), "").strip(), field_name, False

    def __call__(self) -> dict[str, Any]:
        texts = {name: self.get_field_value(field, name)[0] for name, (_, _, field) in _places().items()}
        return {name: text for name, text in texts.items() if text}


def load_settings(env: Mapping[str, str] | None = None, env_file: Path | None = None) -> Settings:
    """Read the settings from `env`; what it lacks, from `env_file`.

    An empty value counts as absent. A relative home that the environment does not give lies beside the file.

    Args:
        env: default: the process's environment, with the `.env` of this folder or of the nearest one above it.
        env_file: a file to read in place of that one; a missing one is no error.

    Raises:
        InvalidSetting: naming every wrong variable, its value (never a secret) and what is allowed.
    """
    if env is None:
        reach_loopback_directly(os.environ)
        env, env_file = os.environ, env_file or find_env_file(Path.cwd())
    given = {name: text for name, text in env.items() if text.strip()}
    if env_file is None or not env_file.is_file():
        return Settings(**VariableSource(given)())
    in_file = read_env_file(env_file)
    home = in_file.get(_HOME, "").strip() or HOME
    in_file[_HOME] = str(env_file.absolute().parent / Path(home).expanduser())
    return Settings(**VariableSource(in_file | given)())


def unknown_variables() -> list[tuple[str, str]]:
    """What in `.env` looks like a setting and is none: a sentence, and what to do about it."""
    path = find_env_file(Path.cwd())
    unknown = explain_unknown(read_env_file(path), _places()) if path else []
    return [(f"{path}: {name}", remedy) for name, remedy in unknown]


def declarations() -> list[Declaration]:
    """Every setting in the order of the groups, for documentation, `babylon doctor` and tests."""
    return [
        Declaration(
            group=group,
            variable=name,
            default=write_value(field, field.default),
            allowed=allowed_values(field),
            doc=field.description or "",
            secret=is_secret(field),
        )
        for name, (group, _, field) in _places().items()
    ]


def printable(settings: Settings) -> dict[str, str]:
    """Variable to value as text, fit to be printed: secrets hidden, empty for what is not set."""
    return {name: HIDDEN if secret and text else text for name, (text, secret) in _rendered(settings).items()}


def secrets_of(settings: Settings) -> list[str]:
    """Every text that must never be shown: the secret settings, and the password of an address among them."""
    texts = [text for text, secret in _rendered(settings).values() if secret and text]
    passwords = (re.match(r"\w+://[^/@]*:([^/@]+)@", text) for text in texts)
    return [*texts, *(match[1] for match in passwords if match)]


def subprocess_environment(settings: Settings, dagster_url: str) -> dict[str, str]:
    """The environment of a child process that must see the very same settings, whatever its working folder: this one,
    with every setting written out, DAGSTER_HOME, and as BABYLON_DAGSTER_URL the SQLAlchemy URL of Dagster's storage.
    """
    environment = dict(os.environ)
    reach_loopback_directly(environment)
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


def foreign_environment() -> dict[str, str]:
    """The environment of another account's programs: no key of ours, for that account can read it of a process."""
    passed_on = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in passed_on if name in os.environ}


#: Read by Dagster: what a run plans to make, a row per partition, is written this many rows at a time.
_EVENT_BATCHES = ("DAGSTER_EVENT_BATCH_SIZE", "1000")


def write_events_in_batches() -> None:
    """Let Dagster in this process write many planned partitions as one statement; call before a run is made."""
    os.environ.setdefault(*_EVENT_BATCHES)


def _rendered(settings: Settings) -> dict[str, tuple[str, bool]]:
    """Variable to (value as text, whether it is a secret)."""
    return {
        name: (write_value(field, getattr(getattr(settings, group) if group else settings, place)), is_secret(field))
        for name, (group, place, field) in _places().items()
    }


def prepare_libraries(settings: Settings) -> None:
    """Tell the libraries of training what they read from the environment; call before any of them is imported.

    litellm must not fetch a price list at import, W&B must not ask for a login where there is no key, a local model
    needs no hub, and the tokenizers' own threads and bars only stand in the way of our training and of our lines.

    Raises:
        SettingsError: a variable of theirs, such as WANDB_BASE_URL, would have them send a key in the clear.
    """
    for name in [] if settings.keys_over_http else open_library_urls(os.environ):
        if name == HUB or (settings.training.wandb_api_key if name.startswith("WANDB_") else settings.judge.model):
            raise SettingsError(_IN_THE_CLEAR.format(name))
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1") == "1":
        hide_bars()
    if settings.training.wandb_api_key is None:
        os.environ.setdefault("WANDB_MODE", "disabled")
    base_model = settings.training.base_model
    if base_model is None or "/" not in base_model or Path(base_model).exists():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
