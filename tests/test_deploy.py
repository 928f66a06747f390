"""deploy/: files that can be read, that name only what exists, that hold no secret and open no door.

No container and no cluster is started here; docs/operating.md says what was not run.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.config_schema import process_workspace_config
from typer.main import get_command

from babylon_assets.cli.app import app
from babylon_assets.config.settings import Settings, declarations
from babylon_assets.definitions import build_definitions
from babylon_assets.orchestration.runtime import LINE

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
HELM = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
[CODE] = HELM["dagster-user-deployments"]["deployments"]
UNITS = sorted((DEPLOY / "systemd").glob("babylon-*.*"))
SETTINGS = {setting.variable for setting in declarations()}
COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]
#: Variables that other programs read.
OTHERS = {"BABYLON_DAGSTER_URL", "DAGSTER_HOME", "PGPASSWORD", "POSTGRES_PASSWORD"} | {
    *("HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PYTHON_IMAGE", "POSTGRES_IMAGE", "LOCKED")
}
BIN = Path(sys.executable).parent


def environment_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def unit(path: Path) -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(path.read_text())
    return parsed


def started() -> list[list[str]]:
    """Every command that some file here starts from our environment."""
    found = [service["command"] for service in COMPOSE["services"].values() if "command" in service]
    found += [container["command"] for container in CODE["initContainers"]]
    found.append(["dagster", "api", "grpc", *CODE["dagsterApiGrpcArgs"]])
    for path in UNITS:
        for line in re.findall(r"^ExecStart=/opt/babylon/\.venv/bin/(.+)$", path.read_text(), flags=re.MULTILINE):
            found.append(line.split())
    return found


@cache
def explained(program: str, *subcommands: str) -> str:
    """A program's help; two seconds for each of Dagster's, hence once."""
    asked = [str(BIN / program), *subcommands, "--help"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", started(), ids=" ".join)
def test_every_program_exists_and_takes_these_options(command: list[str]) -> None:
    assert (BIN / command[0]).is_file()
    if command[0] == "babylon":
        assert command[1] in COMMANDS
    words = [word for word in command[1:] if re.fullmatch(r"[a-z][a-z-]*", word) and word != "workspace.yaml"]
    subcommands = [] if command[0] == "babylon-webserver" else words[: {"dagster": 2}.get(command[0], 1)]
    shown = explained(command[0], *subcommands)
    assert [word for word in command if word.startswith("--") and word not in shown] == []


def test_every_variable_is_a_setting_or_somebody_elses() -> None:
    named = set(COMPOSE["x-babylon"]["environment"]) | set(COMPOSE["services"]["gateway"]["environment"])
    named |= {item["name"] for item in CODE["env"]}
    named |= set(environment_file(DEPLOY / "systemd" / "environment"))
    named |= set(re.findall(r"--from-literal=([A-Z_]+)=", (DEPLOY / "helm-values.yaml").read_text()))
    named |= set(re.findall(r"\b((?:BABYLON|DAGSTER)_[A-Z]+)=", (DEPLOY / "Dockerfile").read_text()))
    named |= set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert named - SETTINGS - OTHERS == set()
    assert {"DATABASE_URL", "BABYLON_HOME", "DAGSTER_PORT"} <= named


def test_the_values_of_settings_are_allowed() -> None:
    given = {item["name"]: item["value"] for item in CODE["env"]} | environment_file(DEPLOY / "systemd" / "environment")
    settings = Settings(**{name: value for name, value in given.items() if name in SETTINGS})
    assert (settings.training.backend, settings.dagster_port, settings.home) == ("auto", 3000, Path("/var/lib/babylon"))


def test_no_file_holds_a_secret() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert re.findall(r"://[^\s:/@]+:[^\s@$]+@", path.read_text()) == [], path
    passwords = [
        COMPOSE["x-babylon"]["environment"]["PGPASSWORD"],
        COMPOSE["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"],
    ]
    assert all(re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?.+\}", password) for password in passwords)
    assert environment_file(DEPLOY / "systemd" / "environment")["PGPASSWORD"] == ""
    assert "postgresqlPassword" not in HELM["postgresql"]
    assert HELM["generatePostgresqlPasswordSecret"] is False


def test_only_loopback_is_open() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert list(published) == ["webserver", "gateway"]
    assert [port for ports in published.values() for port in ports if not port.startswith("127.0.0.1:")] == []
    assert "--host 127.0.0.1 " in (DEPLOY / "systemd" / "babylon-webserver.service").read_text()
    assert HELM["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert "ingress" not in HELM


def test_no_container_runs_as_root_or_writes_outside_its_volumes() -> None:
    for name, service in {**COMPOSE["services"], "x-babylon": COMPOSE["x-babylon"]}.items():
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["cap_drop"] == ["ALL"], name
        assert {mount.split(":")[0] for mount in service["tmpfs"]} >= {"/tmp"}, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
    assert COMPOSE["services"]["postgres"]["user"] == "postgres"
    data = {mount.split(":")[1] for mount in COMPOSE["x-babylon"]["volumes"]} | {"/tmp"}
    for variable in ("HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        written = Path(COMPOSE["x-babylon"]["environment"][variable])
        assert any(written.is_relative_to(place) for place in data), variable
    text = (DEPLOY / "Dockerfile").read_text()
    made = re.search(r"^RUN mkdir -p (.*) && chown -R babylon:babylon", text, flags=re.MULTILINE)
    assert made is not None and data <= {*made[1].split(), "/tmp"}  # a volume at any other place would be root's


def test_every_image_can_be_named_by_digest() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert {image for image in images if image != "babylon-assets"} == {"${POSTGRES_IMAGE:-postgres:18}"}
    assert COMPOSE["x-babylon"]["build"]["args"]["PYTHON_IMAGE"].startswith("${PYTHON_IMAGE:-python:")
    assert re.search(r"^FROM \$\{PYTHON_IMAGE\}$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)


def test_the_compose_services_wait_for_one_another() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"postgres", "migrate", "code", "webserver", "daemon", "gateway"}
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] in ("service_healthy", "service_completed_successfully")
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other], (name, other)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()
    build = COMPOSE["x-babylon"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_what_the_image_copies_exists_and_is_installed_as_the_project_says() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, flags=re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    assert [word for word in copied if not (ROOT / word).exists()] == []
    assert re.search(r"^USER babylon$", text, flags=re.MULTILINE)
    assert "constraints.txt" in text
    pinned = re.search(r"^dagster==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert f"version {pinned[1]}" in (DEPLOY / "helm-values.yaml").read_text()


def test_the_workspace_names_the_code_server() -> None:
    workspace = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())
    assert process_workspace_config(workspace).success
    [server] = [item["grpc_server"] for item in workspace["load_from"]]
    command = COMPOSE["services"]["code"]["command"]
    assert server["host"] in COMPOSE["services"]
    assert str(server["port"]) == command[command.index("--port") + 1]
    local = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert server["location_name"] == local["location_name"]
    assert local["module_name"] in command
    assert local["module_name"] in CODE["dagsterApiGrpcArgs"]


def test_the_chart_sets_up_dagster_as_the_project_does() -> None:
    ours: dict[str, Any] = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    daemon, concurrency = HELM["dagsterDaemon"], HELM["concurrency"]
    assert concurrency["pools"]["granularity"] == ours["concurrency"]["pools"]["granularity"]
    assert concurrency["pools"]["defaultLimit"] == ours["concurrency"]["pools"]["default_limit"]
    assert concurrency["runs"]["maxConcurrentRuns"] == ours["concurrency"]["runs"]["max_concurrent_runs"]
    assert daemon["runRetries"]["retryOnAssetOrOpFailure"] == ours["run_retries"]["retry_on_asset_or_op_failure"]
    assert daemon["runRetries"]["maxRetries"] == ours["run_retries"]["max_retries"]
    assert daemon["runMonitoring"]["maxResumeRunAttempts"] == ours["run_monitoring"]["max_resume_run_attempts"]
    assert HELM["telemetry"] == ours["telemetry"]
    assert HELM["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def test_the_queue_is_of_a_tag_that_the_lines_runs_carry() -> None:
    job: dg.JobDefinition = build_definitions(Settings()).resolve_job_def(LINE)
    [limit] = HELM["concurrency"]["runs"]["tagConcurrencyLimits"]
    assert job.tags[limit["key"]] == limit["value"]


def test_the_chart_mounts_what_it_claims() -> None:
    [volume], [mount] = CODE["volumes"], CODE["volumeMounts"]
    [claim] = HELM["extraManifests"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mount["name"] == volume["name"]
    assert mount["mountPath"] == {item["name"]: item["value"] for item in CODE["env"]}["BABYLON_HOME"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    image = f"{CODE['image']['repository']}:{CODE['image']['tag']}"
    assert [one["image"] for one in CODE["initContainers"]] == [image]


def test_units_need_only_units_that_are_there() -> None:
    names = {path.name for path in UNITS}
    assert len(names) == 6
    for path in UNITS:
        parsed = unit(path)
        needed = parsed.get("Unit", "Requires", fallback="").split()
        assert set(needed) <= names
        if path.suffix == ".service":
            assert parsed.get("Service", "User") == "babylon"
            assert parsed.get("Service", "EnvironmentFile") == "/etc/babylon/environment"
            assert parsed.get("Service", "NoNewPrivileges") == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("unit", [path for path in UNITS if path.suffix == ".service"], ids=lambda path: path.stem)
def test_a_service_is_exposed_as_little_as_it_can_be(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(unit)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if "offline" in checked.stderr:
        pytest.skip("this systemd-analyze reads no files")
    assert checked.returncode == 0, checked.stdout[-200:]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        text = path.read_text().replace("/opt/babylon/.venv/bin", str(BIN))
        (tmp_path / path.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    about_us = [line for line in checked.stderr.splitlines() if "babylon" in line]
    assert about_us == []
