"""A gateway that is started while PostgreSQL is down: it serves what it served before, records, and picks up."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.domain.errors import TransientError
from babylon_assets.ledger import embedded_postgres
from babylon_assets.ledger.database import Database, embedded_data, migrate, newest_revision, open_database
from babylon_assets.serving.answers import Target
from babylon_assets.serving.awaited_database import AwaitedDatabase
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.http.server import POINTER
from babylon_assets.serving.process import GatewayProcess
from babylon_assets.serving.served_pointer import PointerFile
from tests.gateways import Chain, RunningGateway, wait_for
from tests.gateways import embedded as embedded_engine

ASKED: list[Any] = [{"role": "user", "content": "A yes 40"}]
NOWHERE = Settings(database_url="postgresql://nobody:hush-hush@127.0.0.1:1/none")


@pytest.fixture
def own_server(passable_home: Path, tiny_base: Path) -> Settings:
    """Settings whose PostgreSQL may be stopped, and is not started by whoever uses them."""
    own = Settings(home=passable_home, base_model=str(tiny_base))
    database = open_database(own)
    migrate(database)
    return own.replace(database_url=database.url)


@pytest.fixture
def served_once(own_server: Settings, tiny_base: Path, tiny_library: Library, tmp_path: Path) -> Chain:
    """A chain of which a gateway has served the second checkpoint, before PostgreSQL went down."""
    database = open_database(own_server)
    chain = Chain(database, tiny_base, tmp_path / "checkpoints")
    chain.add(1)
    chain.promote(1)
    with RunningGateway(own_server, database, embedded_engine(tiny_library, own_server)) as gateway:
        assert httpx.get(f"{gateway.root}/health").json()["missing"] == []
    embedded_postgres.stop(embedded_data(own_server))
    return chain


def test_the_policy_that_was_served_goes_on_and_records_wait(own_server: Settings, served_once: Chain) -> None:
    environment = subprocess_environment(own_server, served_once.database.dagster_url)
    killed = pytest.raises(TransientError, match=r"the gateway was ended by SIGKILL; read .*gateway\.log")
    with killed, GatewayProcess(own_server, environment) as gateway:
        health = gateway.url.replace("/v1", "/health")
        told = httpx.get(health).json()
        assert (told["status"], told["database"], told["policy"]) == ("degraded", False, "babylon-agent@1")
        assert told["missing"] == ["PostgreSQL does not answer"]
        assert told["policy_noted_at"].startswith("20")
        with openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0) as client:
            for model, policy in (("babylon-agent", "babylon-agent@1"), ("base", "babylon-agent@0")):
                reply = client.chat.completions.create(model=model, messages=ASKED, max_tokens=4)
                assert reply.model == policy
            with pytest.raises(openai.InternalServerError, match="cannot be asked"):
                client.chat.completions.create(model="babylon-agent@7", messages=ASKED, max_tokens=4)
        assert httpx.get(health).json()["records_waiting_bytes"] > 0
        embedded_postgres.start(embedded_data(own_server))
        wait_for(lambda: httpx.get(health).json()["status"] == "ok")
        wait_for(lambda: httpx.get(health).json()["records_waiting_bytes"] == 0)
        back = httpx.get(health).json()
        assert (back["missing"], "policy_noted_at" in back) == ([], False)
        served_once.add(2)
        served_once.promote(2)
        wait_for(lambda: httpx.get(health).json()["policy"] == "babylon-agent@2")
        os.kill(gateway.pid, signal.SIGKILL)
        os.waitid(os.P_PID, gateway.pid, os.WEXITED | os.WNOWAIT)
        raise TransientError("the gateway does not answer")
    with served_once.database.connect() as conn:
        rows = conn.execute("SELECT policy FROM babylon_training.inference_calls ORDER BY policy").fetchall()
    assert rows == [("babylon-agent@0",), ("babylon-agent@1",)]


def test_what_is_missing_is_said_and_what_is_there_answers(tmp_path: Path, tiny_library: Library) -> None:
    settings = NOWHERE.replace(home=tmp_path / "home")
    with RunningGateway(settings, AwaitedDatabase(settings), embedded_engine(tiny_library, settings)) as gateway:
        health = httpx.get(f"{gateway.root}/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        assert health.json()["missing"] == [
            "PostgreSQL does not answer",
            "a policy: none was served from this home folder before",
        ]
        assert "127.0.0.1:1" not in health.text and "hush-hush" not in health.text
        body = {"messages": ASKED, "max_tokens": 4}
        refused, answered = (
            httpx.post(f"{gateway.url}/chat/completions", json={**body, "model": model}, timeout=30)
            for model in ("babylon-agent", "base")
        )
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (answered.status_code, answered.json()["model"]) == (200, "babylon-agent@0")


@pytest.mark.parametrize(
    ("noted", "missing"),
    [
        ("weights gone", "the weights of babylon-agent@1, which was served last"),
        ("torn", "a policy: none was served from this home folder before"),
        ("another chain", "a policy: none was served from this home folder before"),
    ],
)
def test_nothing_is_served_that_is_not_there(tmp_path: Path, tiny_library: Library, noted: str, missing: str) -> None:
    settings = NOWHERE.replace(home=tmp_path)
    chain = "other" if noted == "another chain" else settings.model_name
    PointerFile(tmp_path / POINTER, chain).note(Target("babylon-agent@1", 1, str(tmp_path / "0001")))
    if noted == "torn":
        (tmp_path / POINTER).write_bytes((tmp_path / POINTER).read_bytes()[:-20])
    with RunningGateway(settings, AwaitedDatabase(settings), embedded_engine(tiny_library, settings)) as gateway:
        health = httpx.get(f"{gateway.root}/health")
        assert (health.status_code, health.json()["missing"][1:]) == (503, [missing])


def test_who_reaches_an_empty_database_first_migrates_it(empty_database: Database) -> None:
    awaited = AwaitedDatabase(Settings(database_url=empty_database.url))
    with awaited.connect_autocommit() as conn:
        row = conn.execute("SELECT version_num FROM babylon_training.alembic_version").fetchone()
    assert row == (newest_revision(),)
