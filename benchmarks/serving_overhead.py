"""What the gateway adds to a server that answers at once: beside that server alone, and beside LiteLLM's proxy.

Questions come at a fixed rate, whatever comes back, and each is timed from when it was due. Then as many questions as
`OVERHEAD_REQUESTS` says, 100,000 unless set, show whether the process grows. LiteLLM's proxy is measured where
`pip install 'litellm[proxy]'` was done.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from babylon_assets.config.settings import Settings, load_settings, subprocess_environment
from babylon_assets.ledger.database import open_database, stop_embedded
from babylon_assets.serving.process import GatewayProcess
from benchmarks.report import Row, at_most, publish

RATES = (100, 300, 600)
SECONDS = 10
#: The rate at which the bounds hold.
BOUND_RATE = 300
WARM_UP = 300


def main() -> None:
    """Run this part of the bench alone."""
    settings = load_settings()
    rows = measure_overhead()
    publish("serving_overhead", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def measure_overhead() -> list[Row]:
    """The table of latencies, what is added to them, and how the process grows."""
    with ExitStack() as stack:
        port = stack.enter_context(_upstream())
        url = f"http://127.0.0.1:{port}/v1"
        ports = {"bare upstream": port}
        gateway = stack.enter_context(_gateway(url))
        ports["gateway"] = gateway.port
        if importlib.util.find_spec("fastapi") is not None:
            ports["LiteLLM's proxy"] = stack.enter_context(_litellm(url))
        for each in ports.values():
            _ask(each, BOUND_RATE, WARM_UP)
        times = {(name, rate): _ask(ports[name], rate, rate * SECONDS) for rate in RATES for name in ports}
        return [*_table(times), *_bounds(times), *_growth(gateway)]


def _table(times: dict[tuple[str, int], list[float]]) -> Iterator[Row]:
    for (name, rate), taken in times.items():
        yield Row(f"{name}, {rate}/s, median", statistics.median(taken), "ms")
        yield Row(f"{name}, {rate}/s, 99th percentile", _p99(taken), "ms")


def _bounds(times: dict[tuple[str, int], list[float]]) -> Iterator[Row]:
    bare = _p99(times["bare upstream", BOUND_RATE])
    ours = _p99(times["gateway", BOUND_RATE]) - bare
    yield at_most(f"added by the gateway, {BOUND_RATE}/s, 99th percentile", ours, "ms", 1)
    proxy = times.get(("LiteLLM's proxy", BOUND_RATE))
    if proxy is not None:
        yield at_most("of what LiteLLM's proxy adds", ours / (_p99(proxy) - bare), "times", 1 / 3)


def _growth(gateway: GatewayProcess) -> Iterator[Row]:
    count = int(os.environ.get("OVERHEAD_REQUESTS", "100000"))
    before = _resident(gateway.pid)
    _ask(gateway.port, BOUND_RATE, count)
    grown = _resident(gateway.pid) - before
    yield at_most(f"grown over {count} requests", grown / 2**20, "MiB", 20)


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _ask(port: int, rate: float, count: int) -> list[float]:
    """Milliseconds of each request, from clients in a process of their own."""
    program = [sys.executable, "-m", "benchmarks.serving_load", "ask", str(port), str(rate), str(count)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    taken: list[float] = json.loads(done.stdout)
    return taken


@contextmanager
def _upstream() -> Iterator[int]:
    program = [sys.executable, "-m", "benchmarks.serving_load", "serve"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


@contextmanager
def _gateway(url: str) -> Iterator[GatewayProcess]:
    """`babylon serve` before the server, with its records and a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        own = Settings(
            home=Path(scratch),
            gateway_engine="openai",
            gateway_upstream_url=url,
            gateway_queue=10_000,  # a machine that is too slow shows in the times
            gateway_key_concurrency=10_000,
        )
        try:
            environment = subprocess_environment(own, open_database(own).dagster_url)
            with GatewayProcess(own, environment) as gateway:
                yield gateway
        finally:
            stop_embedded(own)


@contextmanager
def _litellm(url: str) -> Iterator[int]:
    """LiteLLM's proxy before the server, as its documentation starts it."""
    with tempfile.TemporaryDirectory() as scratch, socket.create_server(("127.0.0.1", 0)) as unused:
        port = int(unused.getsockname()[1])
        unused.close()
        given = {"model": "openai/default", "api_base": url, "api_key": "any"}
        models = {"model_list": [{"model_name": "default", "litellm_params": given}]}
        config = Path(scratch) / "config.yaml"
        config.write_text(json.dumps(models))
        program = [
            str(Path(sys.executable).with_name("litellm")),
            "--config",
            str(config),
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
        ]
        with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            _wait(f"http://127.0.0.1:{port}/health/liveliness")
            yield port
            process.terminate()


def _wait(url: str) -> None:
    """Until somebody answers there."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nobody answers at {url}")


if __name__ == "__main__":
    main()
