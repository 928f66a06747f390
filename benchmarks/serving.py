"""What the gateway costs and what its batches bring: 32 clients over HTTP, against one `generate` per request and
against the engine without HTTP, in one run.

The gateway is `babylon serve`, in a process of its own with an embedded PostgreSQL; the clients run in another. Every
way answers the same questions with the same seeds. Ratios are medians over rounds of all ways, each ratio of figures of
one round, because what else the machine does changes from minute to minute; plain figures are those of the best round.
What the gateway adds to a server behind it is in `serving_overhead`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, load_settings, prepare_libraries, subprocess_environment
from babylon_assets.domain.trajectories import Message
from babylon_assets.ledger.database import open_database, stop_embedded
from babylon_assets.serving.process import GatewayProcess
from benchmarks.report import Row, at_least, at_most, publish
from benchmarks.serving_overhead import measure_overhead

CLIENTS, REQUESTS, ROUNDS = 32, 960, 5
ALONE = 48
#: Players that see the same board.
SHARING = 8
ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Round:
    """What answering came to: tokens of answers, seconds, the latency of each request in milliseconds, and the seconds
    that the gateway's process was on a CPU."""

    tokens: int
    seconds: float
    latencies: list[float]
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def main() -> None:
    """Run the bench."""
    settings = load_settings()
    prepare_libraries(settings)
    import torch

    from babylon_assets.training.capacity import choose_threads
    from babylon_assets.training.roots import base_model_of

    base = Path(base_model_of(settings))
    threads = choose_threads(settings, str(base))
    torch.set_num_threads(threads)
    questions = _questions(REQUESTS)
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        own = Settings(home=Path(scratch), base_model=str(base), train_threads=threads)
        try:
            with _gateway(own, record=True) as recording, _gateway(own, record=False) as plain:
                rows = _measured(base, questions, recording, plain)
        finally:
            stop_embedded(own)
    rows += measure_overhead(settings.home)
    publish("serving", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _measured(
    base: Path, questions: list[list[Message]], recording: GatewayProcess, plain: GatewayProcess
) -> list[Row]:
    from babylon_assets.serving.engine.engine import Engine

    engine = Engine(base, width=CLIENTS)
    alone = _generate(base)
    ways: dict[str, Callable[[], Round]] = {
        "alone": lambda: alone(questions[:ALONE]),
        "engine": lambda: _directly(engine, questions),
        "http": lambda: _over_http(recording, questions),
        "unrecorded": lambda: _over_http(plain, questions),
    }
    rounds: list[dict[str, Round]] = []
    for number in range(ROUNDS):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        rounds.append({name: ways[name]() for name in order})
        rates = ", ".join(f"{name} {rounds[-1][name].rate:.0f}" for name in ways)
        print(f"round {number + 1}, tokens/s: {rates}", flush=True)
    return _rows(rounds)


def _rows(rounds: list[dict[str, Round]]) -> list[Row]:
    best = {name: max((each[name] for each in rounds), key=lambda result: result.rate) for name in rounds[0]}
    alone, engine, http = (best[name] for name in ("alone", "engine", "http"))
    more_cpu = _median(rounds, lambda each: each["http"].cpu_seconds / each["unrecorded"].cpu_seconds) - 1
    slower = 1 - _median(rounds, lambda each: each["http"].rate / each["unrecorded"].rate)
    return [
        Row("one generate per request", alone.rate, "tokens/s"),
        Row("one generate per request, median latency", statistics.median(alone.latencies), "ms"),
        Row(f"engine without HTTP, {CLIENTS} side by side", engine.rate, "tokens/s"),
        Row(f"over HTTP, {CLIENTS} clients", http.rate, "tokens/s"),
        Row(f"over HTTP, {CLIENTS} clients, median latency", statistics.median(http.latencies), "ms"),
        Row(f"over HTTP, {CLIENTS} clients, 99th percentile", statistics.quantiles(http.latencies, n=100)[98], "ms"),
        Row(f"over HTTP, {CLIENTS} clients", len(http.latencies) / http.seconds, "requests/s"),
        at_least(
            "over HTTP against one generate per request",
            _median(rounds, lambda each: each["http"].rate / each["alone"].rate),
            "times",
            5,
        ),
        at_most(
            "engine without HTTP against over HTTP",
            _median(rounds, lambda each: each["engine"].rate / each["http"].rate),
            "times",
            1.6,
        ),
        at_most("slower for recording", 100 * slower, "percent", 5),
        Row("more CPU of the gateway for recording", 100 * more_cpu, "percent"),
    ]


def _median(rounds: list[dict[str, Round]], ratio: Callable[[dict[str, Round]], float]) -> float:
    return statistics.median(map(ratio, rounds))


def _questions(count: int) -> list[list[Message]]:
    """What the players of the simulated game are asked at its first ticks: eight see each board."""
    from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
    from babylon_assets.environments.simulated.language import Account, prompt

    boards = [demonstration.board for demonstration in draw_demonstrations(seed=1, count=count // SHARING)]
    return [
        prompt(board, Account(10_000.0 + seat * 7, float(seat * 7), seat % 3))
        for board in boards
        for seat in range(SHARING)
    ]


def _generate(base: Path) -> Callable[[list[list[Message]]], Round]:
    """The plain way: transformers' own `generate`, one request after the other."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    def answer(questions: list[list[Message]]) -> Round:
        started, tokens, latencies = time.perf_counter(), 0, []
        for seed, question in enumerate(questions):
            asked = time.perf_counter()
            torch.manual_seed(seed)
            messages = [{"role": each.role, "content": each.content} for each in question]
            given = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.inference_mode():
                out = model.generate(**given, do_sample=True, top_k=0, max_new_tokens=ANSWER_TOKENS)
            tokenizer.decode(out[0, given["input_ids"].shape[1] :])
            tokens += out.shape[1] - given["input_ids"].shape[1]
            latencies.append(1000 * (time.perf_counter() - asked))
        return Round(tokens, time.perf_counter() - started, latencies)

    return answer


def _directly(engine: Any, questions: list[list[Message]]) -> Round:
    started = time.perf_counter()
    answers = engine.complete(questions, range(len(questions)), max_tokens=ANSWER_TOKENS)
    return Round(sum(len(answer.token_ids) for answer in answers), time.perf_counter() - started, [])


@contextmanager
def _gateway(settings: Settings, *, record: bool) -> Iterator[GatewayProcess]:
    """`babylon serve` on a free port."""
    database = open_database(settings)
    chosen = settings.replace(gateway_record=record)
    with GatewayProcess(chosen, subprocess_environment(chosen, database.dagster_url)) as gateway:
        yield gateway


def _over_http(gateway: GatewayProcess, questions: list[list[Message]]) -> Round:
    """The clients, in a process of their own."""
    program = [sys.executable, "-m", "benchmarks.serving_clients", str(gateway.port), str(CLIENTS), str(ANSWER_TOKENS)]
    given = json.dumps([[{"role": each.role, "content": each.content} for each in one] for one in questions])
    before = _cpu_seconds(gateway.pid)
    done = subprocess.run(program, input=given, capture_output=True, text=True, check=True)
    tokens, seconds, latencies = json.loads(done.stdout)
    return Round(tokens, seconds, latencies, _cpu_seconds(gateway.pid) - before)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
