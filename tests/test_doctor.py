"""What `babylon doctor` finds: each check finds its fault, says what to do, and nothing heavy is loaded for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import psycopg
import pytest

from babylon_assets.cli import database_checks, doctor
from babylon_assets.cli.diagnosis import Diagnosis
from babylon_assets.cli.doctor import diagnose
from babylon_assets.config.settings import Settings
from babylon_assets.environments.registry import open_environment
from babylon_assets.ledger.database import Connection, Database
from babylon_assets.training import devices
from babylon_assets.training.backends.local_gpu.backend import BASE_MODEL
from babylon_assets.training.capacity import checkpoint_gib, disk_gib, gpu_gib
from babylon_assets.training.devices import CudaDevice
from babylon_assets.training.model_wheels import PACKAGED
from tests.environments.babylon.rows import add_trajectories, add_users, trajectory
from tests.hosted_service import KEY, HostedService, hosted_service

Findings = Callable[..., dict[str, Diagnosis]]


@pytest.fixture
def findings(game_database: Database, tiny_base: Path, tmp_path: Path) -> Findings:
    def look(**changes: object) -> dict[str, Diagnosis]:
        settings = Settings(home=tmp_path, database_url=game_database.url, base_model=str(tiny_base))
        return {one.name: one for one in diagnose(settings.replace(**changes))}

    return look


@pytest.fixture(scope="module")
def service(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedService]:
    with hosted_service(tiny_base, tmp_path_factory.mktemp("hosted")) as running:
        yield running


def test_all_is_well(findings: Findings) -> None:
    found = findings()
    assert [one for one in found.values() if one.remedy] == []
    wanted = ["database", "clock", "time zone", "role", "our tables", "Dagster's database", "the environment's tables"]
    wanted = ["environment", "rewards", *wanted, "backend", "key of W&B", "base model", "disk"]
    assert [*doctor.PINS, *wanted] == list(found)
    assert "may create" in found["Dagster's database"].found
    assert found["clock"].found.startswith("the database's is 0.")
    assert "owns the schema" in found["role"].found
    assert "the role may write there, which is not needed" in found["the environment's tables"].found


def test_what_the_settings_name_is_looked_for_without_a_database(findings: Findings, tmp_path: Path) -> None:
    typo = {"environment": "suport_desk"}
    alone = [one for one in diagnose(Settings(home=tmp_path / "none", **typo)) if one.remedy]
    assert [one.name for one in alone] == ["environment", "database"]
    assert alone[0].remedy.startswith("ENVIRONMENT is 'suport_desk'; set it to auto, babylon, feed, files, simulated")
    assert [name for name, one in findings(**typo).items() if one.remedy] == ["environment", "the environment's tables"]
    weights = {"reward_weights": {"outcome": 1.0, "promptnes": 1.0}}
    assert "REWARD_WEIGHTS names no scorer: promptnes." in findings(**weights)["rewards"].remedy
    assert findings(reward_weights={"feedback": 1.0})["rewards"].found == "feedback 1"


def test_a_key_is_tried_on_the_service_and_never_shown(findings: Findings, service: HostedService) -> None:
    taken = findings(wandb_api_key=KEY, serverless_url=service.url)["key of W&B"]
    assert (taken.found, taken.remedy) == ("set, and the hosted service takes it", "")
    refused = findings(wandb_api_key="wrong-key-1234", serverless_url=service.url)["key of W&B"]
    assert ("refused (401)" in refused.found, "WANDB_API_KEY" in refused.remedy) == (True, True)
    assert "wrong-key-1234" not in refused.found + refused.remedy
    service.faults["events"] = [503]
    assert "answers 503" in findings(wandb_api_key=KEY, serverless_url=service.url)["key of W&B"].found
    silent = findings(wandb_api_key=KEY, serverless_url="http://127.0.0.1:9/v1")["key of W&B"]
    assert ("does not answer" in silent.found, "SERVERLESS_URL" in silent.remedy) == (True, True)


def test_clocks_that_differ_are_seen(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("babylon_assets.cli.database_checks.time.time", lambda: now() - 90)
    found = findings()["clock"]
    assert ("90.0 s ahead" in found.found, "NTP" in found.remedy) == (True, True)


def test_a_role_that_does_not_own_our_schema_is_told_what_to_have_run(conn: Connection, database: Database) -> None:
    conn.execute("CREATE ROLE reader")
    conn.execute("SET LOCAL ROLE reader")
    found = database_checks._role(conn, database)
    assert "reader does not own" in found.found
    assert found.remedy.endswith('ALTER SCHEMA babylon_training OWNER TO "reader"')
    conn.rollback()


def test_a_role_that_cannot_make_the_missing_schema_is_told_so(empty_database: Database) -> None:
    with empty_database.connect() as conn:
        assert "may create" in database_checks._role(conn, empty_database).found
        conn.execute("CREATE ROLE stranger")
        conn.execute("SET LOCAL ROLE stranger")
        found = database_checks._role(conn, empty_database)
        assert found.remedy.endswith('CREATE SCHEMA babylon_training AUTHORIZATION "stranger"')
        dagster = database_checks._dagster_beside("Dagster's database", conn)
        assert f'CREATE DATABASE "{conn.info.dbname}_dagster" OWNER "stranger"' in dagster.remedy
        conn.rollback()


def test_a_database_that_is_not_there_is_told_in_words(findings: Findings) -> None:
    missing = findings(database_url="postgresql://babylon@127.0.0.1:9/none")["database"]
    assert missing.found == "no answer"
    assert "127.0.0.1:9/none" in missing.remedy


def test_a_base_model_that_cannot_be_trained_and_a_full_disk(
    findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("babylon_assets.training.capacity.BESIDES", 1e9)
    found = findings(base_model=str(tmp_path))
    assert "Qwen2, Qwen3 and Llama" in found["backend"].remedy
    assert "BABYLON_HOME" in found["disk"].remedy


def test_a_gpu_that_is_too_small_for_the_base_model(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_device", lambda: CudaDevice("NVIDIA T4", 15.0))
    large = findings(base_model="Qwen/Qwen3-14B", training_backend="embedded")["GPU"]
    assert ("about 29 GiB are needed" in large.found, "smaller model" in large.remedy) == (True, True)
    small = findings(base_model="Qwen/Qwen2.5-0.5B-Instruct", training_backend="embedded")
    assert small["GPU"].remedy == ""
    assert "the hub does not answer" in small["base model"].found
    assert not small["base model"].sure


@pytest.mark.parametrize(
    ("base_model", "config", "found", "remedy"),
    [
        ("gpt2", {"model_type": "gpt2"}, "not as it should be", "'gpt2', which cannot be trained on this machine"),
        ("Qwen/Qwen3-0.6B", {"model_type": "qwen3"}, "of the Qwen3 family; the first training fetches it", ""),
        ("nobody/none", None, "not as it should be", "the hub shows no model nobody/none"),
    ],
)
def test_the_hub_is_asked_what_a_model_is_that_is_not_here(
    findings: Findings,
    monkeypatch: pytest.MonkeyPatch,
    base_model: str,
    config: dict[str, str] | None,
    found: str,
    remedy: str,
) -> None:
    with _hub({base_model: config}) as url:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        said = findings(base_model=base_model, training_backend="embedded")["base model"]
    assert found in said.found
    assert remedy in said.remedy
    assert bool(remedy) == bool(said.remedy)
    assert said.sure


@pytest.mark.parametrize("environment", ["files", "babylon"])
def test_an_environment_without_a_model_of_its_own_needs_one(findings: Findings, environment: str) -> None:
    without: dict[str, Any] = {"base_model": None, "training_backend": "embedded"}
    said = findings(environment=environment, **without)["base model"]
    assert said.wrong and "set BASE_MODEL" in said.remedy
    assert not findings(environment="simulated", **without)["base model"].wrong


def test_a_packaged_model_is_known_before_it_is_fetched(findings: Findings) -> None:
    said = findings(base_model="smollm2", training_backend="embedded")["base model"]
    assert (said.sure, said.remedy) == (True, "")
    assert said.found == f"{PACKAGED['smollm2'].about}; the first training fetches it"


@contextmanager
def _hub(configs: dict[str, dict[str, str] | None]) -> Iterator[str]:
    """A stand-in for the hub, on loopback: it says what it knows of models, None of those that it does not have."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/api/models/").partition("?")[0]
            config = configs[name]
            self.send_response(404 if config is None else 200)
            if config is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"id": name, "config": config}).encode())

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_needs_grow_with_the_model_and_its_rank(tiny_base: Path) -> None:
    settings = Settings(lora_rank=8)
    of_eight, of_sixteen = (checkpoint_gib(str(tiny_base), rank) or 0.0 for rank in (8, 16))
    assert of_sixteen == 2 * of_eight > 0
    assert disk_gib(settings, str(tiny_base)) == pytest.approx(1 + 24 * of_eight)
    assert disk_gib(settings, BASE_MODEL) > 1.9  # it has to be fetched
    assert gpu_gib(BASE_MODEL) == pytest.approx(3.93, abs=0.1)
    assert gpu_gib("somebody/unnamed") is None


def test_it_answers_as_json_without_torch(game_database: Database, tiny_base: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom babylon_assets.cli.app import main\ntry:\n    main(['doctor', '--json'])\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "BABYLON_HOME": str(tmp_path), "DATABASE_URL": game_database.url}
    environment["BASE_MODEL"] = str(tiny_base)
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    told = json.loads(run.stdout)
    assert {"name", "found", "remedy", "sure"} == set(told["findings"][0])
    assert told["settings"]["DATABASE_URL"] == "***"
    assert run.stderr.splitlines() == ["checking the installation", "False"]


def test_rights_that_the_settings_need_are_found_with_the_grant_to_run(game_database: Database, tmp_path: Path) -> None:
    role = f"{game_database.place.rpartition('/')[2]}_reader"
    wanted = {"train_requests": True, "write_trained_models": True, "write_reward_judgments": True}
    with game_database.connect() as conn:
        conn.execute("CREATE TABLE public.benchmark_results (id text)")
        conn.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public TO {role}".encode())
        conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
    try:
        url = game_database.url.replace("://postgres@", f"://{role}@")
        settings = Settings(home=tmp_path, database_url=url)

        def missing(**changes: Any) -> list[str]:
            with psycopg.connect(url) as conn:
                return list(open_environment(settings.replace(environment="babylon", **changes)).missing_rights(conn))

        assert missing() == []
        lacking = missing(**wanted)
        findings = diagnose(settings.replace(**wanted))
        assert [finding.remedy for finding in findings if finding.name == "rights"] == lacking
        tables = ["training_batches", "trained_models", "trajectories", "benchmark_results", "reward_judgments"]
        assert [re.findall(r"lacks .* on (\w+);", sentence) for sentence in lacking] == [[table] for table in tables]
        assert "WRITE_TRAINED_MODELS is true and the role lacks INSERT on benchmark_results" in lacking[3]
        grants = [re.findall(r"run (GRANT .*), or set ", sentence)[0] for sentence in lacking]
        assert '("usedInTraining", "trainedInBatch", "updatedAt") ON public.trajectories' in grants[2]
        with game_database.connect() as conn:
            conn.execute("; ".join(grants).encode())
        assert missing(**wanted) == []
        with game_database.connect() as conn:
            conn.execute(f"REVOKE SELECT ON public.reward_judgments FROM {role}".encode())
        [unread] = missing(reward_weights={"outcome": 1.0, "game_judgment": 0.5})
        assert "REWARD_WEIGHTS" in unread and "GRANT SELECT ON public.reward_judgments" in unread
    finally:
        with game_database.connect() as conn:
            conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def test_the_newest_hour_is_read_as_training_would_read_it(game_database: Database, findings: Findings) -> None:
    with game_database.connect() as conn:
        add_users(conn, "a1")
        add_trajectories(conn, trajectory("t1"), trajectory("t2", steps="[{"))
    found = findings()["the environment's tables"]
    assert (found.remedy, "1 of 2 rows of" in found.found) == ("", True)
    with game_database.connect() as conn:
        conn.execute("""UPDATE public.trajectories SET "stepsJson" = '[{'""")
    assert "2 of 2 rows of" in findings()["the environment's tables"].remedy
