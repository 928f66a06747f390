"""What the gateway adds to a server that answers at once: beside that server alone, and beside LiteLLM's proxy.

Questions come at a fixed rate, whatever comes back, and each is timed from when it was due: whole replies to their end,
streams to their first text. Each of the three servers has one core, where the system lets cores be chosen; the load and
the gateway's PostgreSQL have the others. The gateway and the server behind it are asked in turn, and a percentile is
that of all rounds, because what else the machine does changes from second to second. Then as many questions as
`OVERHEAD_REQUESTS` says, 100,000 unless set, show whether the process grows.

LiteLLM's proxy cannot be installed beside this package, because what it is pinned to is not. It has a virtual
environment of its own: the one that `OVERHEAD_LITELLM` names, or else `<home>/litellm_proxy`, which is made here. Where
it cannot be installed, the others are measured without it. `OVERHEAD_SECONDS` is how long each rate is kept up, 10
unless set.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, load_settings, subprocess_environment
from babylon_assets.ledger.database import open_database, stop_embedded
from babylon_assets.serving.http.connections import raise_open_files
from babylon_assets.serving.process import GatewayProcess
from benchmarks.report import Row, at_most, publish

RATES = (100, 300, 600)
#: Not 1.82.7 and 1.82.8, which were not LiteLLM's own.
LITELLM = "litellm[proxy]==1.108.7"
PROXY = "LiteLLM's proxy"
#: The rate at which the bounds hold.
BOUND_RATE = 300
WARM_UP = 300
#: In how many parts a rate is kept up, of one server and then the other; what does not keep up is asked once.
ROUNDS = 5
#: Tenths of a second, and more, that a proxy has to answer in.
READY_TRIES = 1800


def main() -> None:
    """Run this part of the bench alone."""
    settings = load_settings()
    rows = measure_overhead(settings.home)
    publish("serving_overhead", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def measure_overhead(home: Path) -> list[Row]:
    """The tables of latencies, what is added to them, and how the process grows."""
    raise_open_files()  # a server that does not keep up has thousands of connections
    seconds = float(os.environ.get("OVERHEAD_SECONDS", "10"))
    with ExitStack() as stack:
        port = stack.enter_context(_upstream())
        url = f"http://127.0.0.1:{port}/v1"
        gateway = stack.enter_context(_gateway(url))
        ports = {"bare upstream": port, "gateway": gateway.port}
        command = _find_litellm(home)
        if command is not None:
            ports[PROXY] = stack.enter_context(_litellm(command, url))
        rows = list[Row]()
        for stream in (False, True):
            for each in ports.values():
                _ask(each, BOUND_RATE / 3, WARM_UP, stream=stream)
            taken = {(name, rate): result for rate in RATES for name, result in _asked(ports, rate, seconds, stream)}
            rows += [*_table(taken, _WHAT[stream]), *_bounds(taken, _WHAT[stream])]
        return [*rows, *_growth(gateway)]


#: It refuses to start without a key of its own, unless it is told to.
_WITHOUT_KEY = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
#: What is timed, by whether it is a stream.
_WHAT = {False: "whole replies", True: "first text of a stream"}


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The milliseconds of the questions that were answered, and how many were not."""

    taken: list[float]
    failed: int

    @property
    def p99(self) -> float:
        """The 99th percentile; infinite where more than one question in a hundred was not answered."""
        if self.failed > 0.01 * (len(self.taken) + self.failed):
            return float("inf")
        return statistics.quantiles(self.taken, n=100)[98]


def _asked(ports: dict[str, int], rate: float, seconds: float, stream: bool) -> Iterator[tuple[str, LoadResult]]:
    """What each server's questions took at this rate."""
    count = int(rate * seconds)
    own = [name for name in ports if name != PROXY]
    rounds = [
        {name: _ask(ports[name], rate, count // ROUNDS, stream=stream) for name in order}
        for order in [own, own[::-1]] * (ROUNDS // 2) + [own] * (ROUNDS % 2)
    ]
    for name in own:
        taken = [milliseconds for each in rounds for milliseconds in each[name].taken]
        yield name, LoadResult(taken, sum(each[name].failed for each in rounds))
    if PROXY in ports:
        yield PROXY, _ask(ports[PROXY], rate, count, stream=stream)


def _table(results: dict[tuple[str, int], LoadResult], what: str) -> Iterator[Row]:
    for (name, rate), result in results.items():
        if result.taken:
            yield Row(f"{what}: {name}, {rate}/s, median", statistics.median(result.taken), "ms")
            yield Row(f"{what}: {name}, {rate}/s, 99th percentile", result.p99, "ms")
        if result.failed:
            yield Row(f"{what}: {name}, {rate}/s, not answered", result.failed, "questions", "none", name == PROXY)


def _bounds(results: dict[tuple[str, int], LoadResult], what: str) -> Iterator[Row]:
    bare = results["bare upstream", BOUND_RATE].p99
    ours = results["gateway", BOUND_RATE].p99 - bare
    yield at_most(f"{what}: added by the gateway, {BOUND_RATE}/s, 99th percentile", ours, "ms", 1)
    proxy = results.get((PROXY, BOUND_RATE))
    if proxy is not None:
        yield at_most(f"{what}: of what LiteLLM's proxy adds", ours / (proxy.p99 - bare), "times", 1 / 3)


def _growth(gateway: GatewayProcess) -> Iterator[Row]:
    count = int(os.environ.get("OVERHEAD_REQUESTS", "100000"))
    before = _resident(gateway.pid)
    _ask(gateway.port, BOUND_RATE, count, stream=False)
    grown = _resident(gateway.pid) - before
    yield at_most(f"grown over {count} requests", grown / 2**20, "MiB", 20)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _ask(port: int, rate: float, count: int, *, stream: bool) -> LoadResult:
    """Ask from clients in a process of their own."""
    program = [sys.executable, "-m", "benchmarks.serving_load", "ask", str(port), str(rate), str(count)]
    with _on_cores(_cores()[1:]):
        done = subprocess.run([*program, *(["stream"] if stream else [])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answers = json.loads(done.stdout)
    if answers["failed"]:
        print(f"{answers['failed']} of {count} were not answered, such as {answers['reasons']}", flush=True)
    return LoadResult(answers["taken"], answers["failed"])


def _cores() -> list[int]:
    """The cores of this process: the first is for the servers, the others for the load. Without choice, none."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores if len(cores) > 1 else []


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started here runs on these cores, as under taskset."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _upstream() -> Iterator[int]:
    program = [sys.executable, "-m", "benchmarks.serving_load", "serve"]
    with _on_cores(_cores()[:1]):
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
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
            with _on_cores(_cores()[1:]):
                environment = subprocess_environment(own, open_database(own).dagster_url)
            with ExitStack() as stack:
                with _on_cores(_cores()[:1]):
                    gateway = stack.enter_context(GatewayProcess(own, environment))
                yield gateway
        finally:
            stop_embedded(own)


def _find_litellm(home: Path) -> Path | None:
    """LiteLLM's command, in a virtual environment of its own; None where it cannot be installed."""
    named = os.environ.get("OVERHEAD_LITELLM")
    folder = Path(named) if named else home / "litellm_proxy"
    command = folder / "bin" / "litellm"
    if not command.exists() and not named:
        print(f"installing {LITELLM} into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", LITELLM], check=False)
    if command.exists():
        return command
    print(f"{command} is not there: LiteLLM's proxy is not measured", flush=True)
    return None


@contextmanager
def _litellm(command: Path, url: str) -> Iterator[int]:
    """LiteLLM's proxy before the server, as its documentation starts it."""
    with tempfile.TemporaryDirectory() as scratch, socket.create_server(("127.0.0.1", 0)) as unused:
        port = int(unused.getsockname()[1])
        unused.close()
        given = {"model": "openai/default", "api_base": url, "api_key": "any"}
        models = {"model_list": [{"model_name": "default", "litellm_params": given}]}
        config = Path(scratch) / "config.yaml"
        config.write_text(json.dumps(models))
        program = [str(command), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", **_WITHOUT_KEY}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
        with _on_cores(_cores()[:1]):
            process = subprocess.Popen(program, **quiet)
        with process:
            try:
                _wait(f"http://127.0.0.1:{port}/health/liveliness", process)
                yield port
            finally:
                process.terminate()


def _wait(url: str, process: subprocess.Popen[Any]) -> None:
    """Until the process answers there."""
    for _ in range(READY_TRIES):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nobody answers at {url}")


if __name__ == "__main__":
    main()
