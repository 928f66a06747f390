"""Settings: read once, checked, and silent about secrets."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.config.gate import GateSettings
from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.config.network import is_loopback, reach_loopback_directly
from babylon_assets.config.settings import (
    Settings,
    declarations,
    load_settings,
    prepare_libraries,
    printable,
    subprocess_environment,
)
from babylon_assets.config.training import EmbeddedSettings
from babylon_assets.domain.errors import SettingsError

SECRETS = {
    "DATABASE_URL": "postgresql://trader:hunter2@db.example:5432/babylon",
    "DAGSTER_DATABASE_URL": "postgresql://trader:hunter2@db.example:5432/dagster",
    "DIRECT_DATABASE_URL": "postgresql://trader:hunter2@db.example:5432/babylon",
    "LEDGER_DATABASE_URL": "postgresql://trader:hunter2@db.example:5432/ledger",
    "WANDB_API_KEY": "hunter2hunter2",
    "SIMULATION_KEY": "hunter2",
    "GATEWAY_UPSTREAM_KEY": "hunter2hunter2",
    "RULER_API_KEY": "hunter2hunter2",
    "FAILURE_WEBHOOK": "https://hooks.example/hunter2",
}


def load(**env: str) -> Settings:
    return load_settings(env, env_file=None)


def test_nothing_set_gives_the_declared_defaults() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.database.url is None
    assert settings.home == Path.cwd() / ".babylon"
    assert settings.rewards.weights == {"outcome": 1.0, "heuristic": 0.1}


def test_every_field_is_declared_once_with_a_sentence() -> None:
    declared = declarations()
    assert len(declared) > 100
    assert len({item.variable for item in declared}) == len(declared)
    assert all(item.doc.endswith(".") and item.allowed for item in declared)


def test_the_declared_default_is_what_an_empty_environment_gives() -> None:
    for item in declarations():
        if item.default:
            assert load(**{item.variable: item.default}) == load(), item.variable


def test_the_environment_wins_over_the_file_and_empty_is_absent(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "LORA_RANK=8\nTRAIN_SEED=5\nBASE_MODEL=\nexport WANDB_PROJECT='my project'\n# THREADS=9\nODD=$HOME\n"
    )
    settings = load_settings({"LORA_RANK": "16", "TRAIN_SEED": "  "}, env_file=file)
    assert (settings.embedded.lora_rank, settings.training.seed, settings.training.base_model) == (16, 5, None)
    assert settings.training.wandb_project == "my project"


def test_the_file_is_found_from_a_folder_below_and_the_home_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("LORA_RANK=8\n")
    below = tmp_path / "notebooks" / "today"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("BABYLON_HOME", raising=False)
    settings = load_settings()
    assert (settings.embedded.lora_rank, settings.home) == (8, tmp_path / ".babylon")
    monkeypatch.setenv("BABYLON_HOME", "own")
    assert load_settings().home == below / "own"
    (below / ".babylon").mkdir()
    assert load_settings().embedded.lora_rank is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_file_that_is_no_utf8_is_refused_in_a_sentence(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes("LORA_RANK=8\n".encode(encoding))
    with pytest.raises(SettingsError, match="not UTF-8 text; save it as UTF-8"):
        load_settings({}, env_file=file)
    file.write_bytes("LORA_RANK=8\n".encode("utf-8-sig"))
    assert load_settings({}, env_file=file).embedded.lora_rank == 8


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('LORA_RANK=8\nOPENAI_API_KEY="sk-se\ncret=1\n', "line 2, cannot be read; write NAME=value"),
        ("# " + "é" * 2**20, "larger than 1 MB"),
    ],
)
def test_a_file_of_which_a_part_would_be_ignored_is_refused(tmp_path: Path, text: str, remedy: str) -> None:
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=remedy) as refused:
        load_settings({}, env_file=tmp_path / ".env")
    assert "sk-se" not in str(refused.value)


def test_a_misspelled_variable_of_the_file_is_named_with_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "LORA_RANKS=8\nlora_rank=8\nGATEWAY_LISTEN_PORT=1\nRULER_MAX_ATTEMPTS=3\nWINDOW_GRACE_MINUTE=3\n"
        "OPENAI_API_KEY=x\nDIRECT_DATABASE_URL=x\nNEXT_PUBLIC_URL=x\nLORA_RANK=8\nBABYLON_API_URL=x\n"
    )
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["version-that-is-none"])
    assert [line.partition(": ")[2] for line in told.stderr.splitlines() if line.startswith("warning")] == [
        f"{tmp_path}/.env: LORA_RANKS is not a setting and has no effect; did you mean LORA_RANK?",
        f"{tmp_path}/.env: lora_rank is not a setting and has no effect; did you mean LORA_RANK?",
        f"{tmp_path}/.env: GATEWAY_LISTEN_PORT is not a setting and has no effect; did you mean GATEWAY_PORT?",
        f"{tmp_path}/.env: RULER_MAX_ATTEMPTS is not read any more: a group is judged in at most 9 attempts; "
        "remove RULER_MAX_ATTEMPTS",
        f"{tmp_path}/.env: WINDOW_GRACE_MINUTE is not a setting and has no effect; did you mean WINDOW_GRACE_MINUTES?",
    ]


def test_a_password_in_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("DATABASE_URL=postgresql://u:pa${HOME}s$s@h/db\n")
    assert load_settings({}, env_file=file).database.url == "postgresql://u:pa${HOME}s$s@h/db"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MIN_AGENTS_PER_WINDOW", "0", "a whole number from 1"),
        ("LORA_RANK", "many", "a whole number from 1 to 256"),
        ("LORA_RANK", "8.5", "a whole number from 1 to 256"),
        ("LEARNING_RATE", "0", "a number above 0 to 1"),
        ("LEARNING_RATE", "nan", "a number above 0 to 1"),
        ("PERP_FULL_SCALE_PERCENT", "inf", "a number above 0 to 1000"),
        ("TRAIN_RL_LOCAL", "maybe", "true or false"),
        ("TRAINING_BACKEND", "cloud", "auto, embedded, serverless, local_gpu, or one that a package adds"),
        ("REWARD_WEIGHTS", "outcome", "scorer=weight"),
        ("REWARD_WEIGHTS", "outcome=0", "scorer=weight"),
        ("REWARD_WEIGHTS", "outcome=1,outcome=2", "scorer=weight"),
        ("REWARD_WEIGHTS", "outcome=nan", "scorer=weight"),
        ("WINDOWS_FROM", "2026-10-01", "the start of a window"),
        ("BABYLON_MODEL", "../x", "letters"),
        ("DAGSTER_PORT", "70000", "a whole number from 1 to 65535"),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(**{variable: value})
    assert variable in str(refused.value)
    assert repr(value) in str(refused.value)
    assert allowed in str(refused.value)


def test_a_number_that_may_be_left_out_says_what_happens_without_it() -> None:
    numbers = ("a number", "a whole number")
    left_out = [item for item in declarations() if item.allowed.startswith(numbers) and not item.default]
    assert {"LEARNING_RATE", "LORA_RANK", "MAX_KL", "SERVERLESS_DAILY_USD"} <= {item.variable for item in left_out}
    assert [item.variable for item in left_out if "Without it " not in item.doc] == []


def test_settings_built_directly_are_checked_as_well() -> None:
    with pytest.raises(SettingsError, match="TRAIN_THREADS"):
        Settings(train_threads=0)
    with pytest.raises(SettingsError, match="LOG_LEVEL"):
        Settings().replace(log_level="LOUD")


def test_every_wrong_value_is_named_in_one_refusal() -> None:
    with pytest.raises(SettingsError) as refused:
        load(LORA_RANK="many", DATABASE_URL="mysql://trader:hunter2@db/babylon", DAGSTER_PORT="0")
    assert [line.partition(" ")[0] for line in str(refused.value).splitlines()] == [
        "DAGSTER_PORT",
        "DATABASE_URL",
        "LORA_RANK",
    ]
    assert "hunter2" not in str(refused.value)


def test_settings_are_built_of_groups_or_by_their_variables() -> None:
    by_group = Settings(embedded=EmbeddedSettings(lora_rank=8), gate=GateSettings(enabled=False))
    assert by_group == Settings(lora_rank=8, gate=False)
    mixed = Settings(embedded=EmbeddedSettings(lora_rank=8), learning_rate=0.5)
    assert (mixed.embedded.lora_rank, mixed.embedded.learning_rate) == (8, 0.5)
    changed = by_group.replace(learning_rate=0.5, gate=True)
    assert (changed.embedded.lora_rank, changed.embedded.learning_rate, changed.gate.enabled) == (8, 0.5, True)
    assert Settings().replace(gateway_port=1).gateway == GatewaySettings(port=1)
    with pytest.raises(SettingsError, match="no setting lora_rnk"):
        Settings(lora_rnk=8)


def test_settings_are_frozen_hashable_and_picklable() -> None:
    settings = load(REWARD_WEIGHTS="outcome=2")
    with pytest.raises(ValidationError, match="frozen"):
        settings.embedded.lora_rank = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.home = Path()
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(load(REWARD_WEIGHTS="outcome=2"))


SENT = {
    "SERVERLESS_URL": {"WANDB_API_KEY": "hunter2"},
    "GATEWAY_UPSTREAM_URL": {"GATEWAY_UPSTREAM_KEY": "hunter2", "GATEWAY_ENGINE": "openai"},
    "RULER_URL": {"RULER_API_KEY": "hunter2", "RULER_MODEL": "openai/judge"},
    "FAILURE_WEBHOOK": {},
}


@pytest.mark.parametrize("variable", SENT)
@pytest.mark.parametrize(
    "url", ["http://other.example/v1", "http://10.0.0.5:8000/v1", "http://localhost@other.example"]
)
def test_no_key_goes_to_another_machine_in_the_clear(variable: str, url: str) -> None:
    sent = {**SENT[variable], variable: url}
    if variable != "FAILURE_WEBHOOK":
        load(**{variable: url})  # without a key there is none to read
    with pytest.raises(SettingsError, match=f"{variable} is http to another machine.*KEYS_OVER_HTTP") as refused:
        load(**sent)
    assert "hunter2" not in str(refused.value) and url not in str(refused.value)
    load(**sent, KEYS_OVER_HTTP="true")
    load(**{**sent, variable: "https://other.example/v1"})
    load(**{**sent, variable: "http://127.0.0.1:9/v1"})
    load(**{**sent, variable: "http://[::1]:9/v1"})


def test_the_hosted_key_does_not_follow_an_open_upstream_either() -> None:
    open_to_all = {"GATEWAY_UPSTREAM_URL": "http://other.example/v1", "WANDB_API_KEY": "hunter2"}
    with pytest.raises(SettingsError, match="GATEWAY_UPSTREAM_URL is http"):
        load(**open_to_all)
    load(**open_to_all, GATEWAY_ENGINE="vllm")  # which is not sent that key


def test_the_libraries_own_variables_send_no_key_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://other.example")
    prepare_libraries(Settings())
    with pytest.raises(SettingsError, match="WANDB_BASE_URL is http"):
        prepare_libraries(Settings(wandb_api_key="hunter2"))
    prepare_libraries(Settings(wandb_api_key="hunter2", keys_over_http=True))
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example")
    monkeypatch.setenv("OPENAI_API_BASE", "http://other.example")
    prepare_libraries(Settings(wandb_api_key="hunter2"))
    with pytest.raises(SettingsError, match="OPENAI_API_BASE is http"):
        prepare_libraries(Settings(ruler_model="openai/judge"))
    monkeypatch.setenv("HF_ENDPOINT", "http://other.example")
    prepare_libraries(Settings())
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    with pytest.raises(SettingsError, match="HF_ENDPOINT is http"):
        prepare_libraries(Settings())


@pytest.mark.parametrize(("asked", "hidden"), [(None, "True"), ("0", "False")])
def test_the_bars_of_libraries_are_hidden_though_one_was_imported_before(asked: str | None, hidden: str) -> None:
    program = (
        "import huggingface_hub\nfrom babylon_assets.config.settings import Settings, prepare_libraries\n"
        "prepare_libraries(Settings())\nfrom huggingface_hub.utils import are_progress_bars_disabled\n"
        "print(are_progress_bars_disabled())"
    )
    variable = "HF_HUB_DISABLE_PROGRESS_BARS"
    given = {name: value for name, value in os.environ.items() if name != variable}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=given | ({variable: asked} if asked else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hidden


def test_secrets_show_nowhere() -> None:
    settings = load(**SECRETS)
    assert settings.database.url == SECRETS["DATABASE_URL"]
    for text in (repr(settings), str(settings), repr(printable(settings))):
        assert "hunter2" not in text
    assert {item.variable for item in declarations() if item.secret} == set(SECRETS)
    assert printable(settings)["WANDB_API_KEY"] == "***"
    assert printable(load())["WANDB_API_KEY"] == ""


def test_a_refused_secret_is_not_in_the_message() -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as refused:
        load(DATABASE_URL="mysql://trader:hunter2@db/babylon")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_child_process_reads_back_the_very_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE_MODEL", "of-the-parent's-environment")
    settings = Settings(
        home=tmp_path / "h", reward_weights={"outcome": 0.1 + 0.2}, base_model=None, train_rl_local=False
    )
    environment = subprocess_environment(settings, "postgresql+psycopg2://somewhere")
    assert load_settings(environment, env_file=None) == settings
    assert environment["DAGSTER_HOME"] == str(tmp_path / "h" / "dagster")
    assert environment["BABYLON_DAGSTER_URL"] == "postgresql+psycopg2://somewhere"


def test_importing_settings_and_store_stays_light() -> None:
    code = (
        "import sys, babylon_assets.config.settings, babylon_assets.ledger.database, babylon_assets.ledger.windows;"
        "print([name for name in ('sqlalchemy', 'alembic', 'dagster', 'torch', 'pandas') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_loopback_is_excepted_from_proxies_and_what_was_excepted_before_stays() -> None:
    environ = {"no_proxy": "internal.example, 127.0.0.1"}
    reach_loopback_directly(environ)
    assert environ["no_proxy"] == "internal.example,127.0.0.1,localhost,::1"
    assert environ["NO_PROXY"] == environ["no_proxy"]  # libraries read one of both
    apart = {"no_proxy": "a", "NO_PROXY": "b"}
    reach_loopback_directly(apart)
    assert apart == {"no_proxy": "a,localhost,127.0.0.1,::1", "NO_PROXY": "b,localhost,127.0.0.1,::1"}
    for everything in ({"no_proxy": "*", "NO_PROXY": "*"}, {"NO_PROXY": "*"}, {"no_proxy": "*"}):
        reach_loopback_directly(everything)
        assert everything == {"no_proxy": "*", "NO_PROXY": "*"}
    assert [is_loopback(url) for url in ("http://127.0.0.5:1/v1", "http://localhost", "https://[::1]:8/x")] == [
        True
    ] * 3
    assert [is_loopback(url) for url in ("http://example.com", "http://127.0.0.1.example.com", "nothing")] == [
        False
    ] * 3
