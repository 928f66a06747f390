"""A thread that fails of what nobody foresaw: whoever waits is told, health says so, the process ends to be restarted.

No input is known that has a thread fail, so an inner method is replaced in each of these tests.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from babylon_assets.config.settings import Settings, subprocess_environment
from babylon_assets.serving.engine.batching import Batch
from babylon_assets.serving.engine.fair_queue import KeyTurns
from babylon_assets.serving.http import server
from babylon_assets.serving.policy_registry import Directory
from babylon_assets.serving.recorder import Recorder
from tests.gateways import RunningGateway, wait_for

Gateways = Callable[..., RunningGateway]

BODY: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "A yes 40"}], "seed": 1}
ASK = "/v1/chat/completions"


class Fault(threading.Event):
    """Once it is set, the engine fails; `stands` is set once the engine waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.stands = threading.Event()


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    """The engine stands still after some steps, and fails once this is set."""
    fault, steps, spend = Fault(), list[object](), KeyTurns.spend

    def fail(turns: KeyTurns[Any], batch: Any, seconds: float) -> None:
        steps.append(batch)
        if len(steps) > 3:
            fault.stands.set()
            if fault.wait(60):
                raise RuntimeError("an inner fault")
        spend(turns, batch, seconds)

    monkeypatch.setattr(KeyTurns, "spend", fail)
    yield fault
    fault.set()


def test_a_failed_engine_is_told_to_all_and_ends_the_gateway(
    gateway_with: Gateways,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stops: list[Any] = []
    monkeypatch.setattr(server, "_stop", lambda *given: stops.append(given))  # so that it can be asked before it ends
    gateway, lines = gateway_with(), list[str]()
    with httpx.Client(base_url=gateway.root, timeout=60) as client, ThreadPoolExecutor(2) as pool:

        def stream() -> None:
            with client.stream("POST", ASK, json={**BODY, "stream": True}) as reply:
                for line in filter(None, reply.iter_lines()):
                    lines.append(line)

        streaming = pool.submit(stream)
        wait_for(lambda: lines)
        assert fault.stands.wait(30)  # who asks now gets no place
        waiting = pool.submit(client.post, ASK, json=BODY)
        wait_for(lambda: gateway.parts.source.load() == (1, 1))
        fault.set()
        told, late, health = waiting.result(30), client.post(ASK, json=BODY), client.get("/health")
        streaming.result(30)
    for refused in (told, late):
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "api_error")
    assert told.json()["error"]["code"] == "engine_failed"
    assert "engine_failed" in lines[-2] and len(lines) > 2
    assert (health.status_code, health.json()["missing"]) == (503, ["the thread engine, which failed"])
    wait_for(lambda: stops)
    (uvicorn, _), *_ = stops
    uvicorn.should_exit = True
    assert "its thread engine failed" in gateway.failure(30)
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert "the thread engine failed" in logged.message and "an inner fault" in str(logged.exc_info)


#: `babylon serve` with somebody who answers, and fails.
SERVE = """
import sys
from babylon_assets.cli import serve
from babylon_assets.cli.app import main
from babylon_assets.serving.lasting_thread import LastingThread

class Failing:
    opens_thought = False
    def __init__(self):
        self.thread = LastingThread(lambda: 1 // 0, "engine")
        self.thread.start()
    def prepare(self, policy): pass
    def load(self): return 0, 0
    def close(self): pass

serve.make_source = lambda settings, loop: Failing()
main(["serve", "--fd", sys.argv[1]])
"""


def test_the_process_of_a_failed_engine_ends_so_that_it_is_started_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/none")
    environment = subprocess_environment(settings, "")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-c", SERVE, str(listening.fileno())]
        pipes: dict[str, Any] = {"capture_output": True, "text": True, "pass_fds": [listening.fileno()]}
        done = subprocess.run(command, env=environment, check=False, timeout=120, **pipes)
    assert done.returncode == 75  # what `babylon up` and systemd start again
    assert done.stderr.count("ZeroDivisionError") == 1
    assert "error: the gateway ended, for its thread engine failed" in done.stderr


FAULTS: dict[str, tuple[type, str]] = {"pointer": (Directory, "look"), "recorder": (Recorder, "_store_held")}


@pytest.mark.parametrize("thread", FAULTS)
def test_it_ends_as_well_without_a_thread_that_looks_or_records(
    gateway_with: Gateways, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    gateway = gateway_with()

    def fail(_: Any) -> None:
        raise KeyError("an inner fault")

    monkeypatch.setattr(*FAULTS[thread], fail)
    assert f"its thread {thread} failed" in gateway.failure(30)


class Panic(BaseException):
    """As a library in Rust raises it, past `except Exception`."""


def test_a_panic_in_a_step_ends_the_answers_of_its_batch_alone(
    gateway_with: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{gateway_with().url}/chat/completions"

    def fail(*_: Any, **__: Any) -> None:
        raise Panic

    with monkeypatch.context() as broken:
        broken.setattr(Batch, "step", fail)
        reply = httpx.post(url, json=BODY, timeout=30)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert httpx.post(url, json={**BODY, "max_tokens": 3}, timeout=30).status_code == 200
