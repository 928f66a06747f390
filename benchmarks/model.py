"""A real language model, SmolLM2-135M-Instruct, beside what others make of it: one run, side by side.

Answers: `babylon serve` in a process of its own, asked over HTTP by 32 clients in another, against transformers' own
`generate` per request and its own continuous batching (`rivals.transformers_answers`), which are given tokens and no
HTTP. All are asked what the simulated market asks, in its order, tick by tick, the players of a room with their room's
prompt in common, in both of its styles (SIMULATION_STYLE). The base model answers, in the same numbers, with the same
threads, at temperature 1 up to the style's longest answer. Ratios are medians over rounds of all ways.

Training: `algorithm.policy_gradient_pass` over packed rows against TRL's GRPOTrainer on its padded batches
(`rivals.our_trainer`, `rivals.trl_trainer`), the same samples in the same groups of eight. A rate counts the tokens of
prompts and answers of every sample, as if nothing was shared, per second of a CPU, after a group to warm up. Both
compute a layer's activations again in the backward pass, which is their default for such a model.

Memory: the peak (VmHWM) of the gateway's process after all its rounds, and of one that trains a window.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings, load_settings, prepare_libraries, subprocess_environment
from babylon_assets.ledger.database import open_database, stop_embedded
from babylon_assets.serving.process import GatewayProcess
from benchmarks.report import Row, at_least, at_most, publish
from benchmarks.rivals.market_questions import MarketQuestion, draw_questions
from benchmarks.rivals.samples import RecordedSample
from benchmarks.rivals.trainer_process import run_trainer
from benchmarks.rivals.trl_library import trl_environment

MODEL = "smollm2"
STYLES = ("terse", "game")
CLIENTS, ROUNDS = 32, 3
#: Questions of a round; transformers' `generate` takes them one by one and is asked fewer. In the game's style they are
#: no more than transformers has side by side: with more of such long shared prompts, its continuous batching (5.2)
#: reads beyond its index of the cache, and ends.
QUESTIONS, ALONE = {"terse": 128, "game": 32}, {"terse": 8, "game": 2}
#: Groups of eight that are trained on, the first to warm up; and those of the window whose memory is measured.
GROUPS, WINDOW_GROUPS = {"terse": 9, "game": 4}, {"terse": 32, "game": 8}
TRL_BATCH = 8


@dataclass(frozen=True, slots=True)
class Round:
    """Answers, tokens of answers, and the seconds that they took."""

    answers: int
    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def main() -> None:
    """Run the bench; `answers`, `training` or `memory` as an argument runs that part alone."""
    settings = load_settings()
    prepare_libraries(settings)
    from babylon_assets.training.capacity import choose_threads
    from babylon_assets.training.roots import base_model_of

    base = Path(base_model_of(settings.replace(base_model=settings.training.base_model or MODEL)))
    threads = choose_threads(settings, str(base))
    parts: dict[str, Callable[[Settings, Path], list[Row]]] = {
        "answers": _measure_answers,
        "training": lambda own, folder: _measure_training(own, folder, settings.home),
        "memory": _measure_memory,
    }
    rows: list[Row] = []
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
            own = Settings(home=Path(scratch), base_model=str(base), train_threads=threads)
            measured = parts[name](own, Path(scratch))
        print(*(f"{row.name}: {row.value:.3f} {row.unit}" for row in measured), sep="\n", flush=True)
        rows += measured
    publish("model", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _measure_answers(settings: Settings, folder: Path) -> list[Row]:
    database = open_database(settings)
    try:
        with (
            GatewayProcess(settings, subprocess_environment(settings, database.dagster_url)) as gateway,
            _transformers(settings) as ask,
        ):
            rows = [row for style in STYLES for row in _compare_answers(settings, style, gateway, ask)]
            peak = _peak_gb(gateway.pid)
    finally:
        stop_embedded(settings)
    return [*rows, at_most("peak memory of the gateway", peak, "GB", 1.2)]


def _compare_answers(settings: Settings, style: str, gateway: GatewayProcess, ask: Any) -> list[Row]:
    """Rounds of all ways, in turns."""
    from babylon_assets.environments.simulated.styles import STYLES as FORMS
    from babylon_assets.serving.engine.texts import ChatTokenizer

    questions = draw_questions(settings.replace(simulation_style=style), QUESTIONS[style])
    tokenizer, longest = ChatTokenizer(Path(str(settings.training.base_model))), FORMS[style].answer_tokens
    prompts = [tokenizer.prompt(question.messages) for question in questions]
    ways: dict[str, Callable[[], Round]] = {
        "http": lambda: _ask_over_http(gateway, questions, longest),
        "continuous": lambda: ask("continuous", prompts, longest),
        "generate": lambda: ask("generate", prompts[: ALONE[style]], longest),
    }
    rounds = []
    for number in range(ROUNDS):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        rounds.append({name: ways[name]() for name in order})
        print(f"{style}, round {number + 1}: {_in_words(rounds[-1])}", flush=True)
    return _answer_rows(style, rounds, statistics.fmean(map(len, prompts)))


def _in_words(ways: dict[str, Round]) -> str:
    return ", ".join(
        f"{name} {way.rate:.2f} answers/s ({way.tokens / way.answers:.0f} tokens)" for name, way in ways.items()
    )


def _answer_rows(style: str, rounds: list[dict[str, Round]], prompt_tokens: float) -> list[Row]:
    def best(way: str) -> float:
        return max(ways[way].rate for ways in rounds)

    def ratio(way: str) -> float:
        return statistics.median(ways["http"].rate / ways[way].rate for ways in rounds)

    return [
        Row(f"{style}: tokens of a prompt", prompt_tokens, "tokens"),
        Row(f"{style}: over HTTP, {CLIENTS} clients", best("http"), "answers/s"),
        Row(f"{style}: transformers' continuous batching", best("continuous"), "answers/s"),
        Row(f"{style}: transformers' generate per request", best("generate"), "answers/s"),
        at_least(f"{style}: over HTTP against generate per request", ratio("generate"), "times", 4),
        at_least(f"{style}: over HTTP against continuous batching", ratio("continuous"), "times", 1.2),
    ]


def _ask_over_http(gateway: GatewayProcess, questions: Sequence[MarketQuestion], longest: int) -> Round:
    """The clients, in a process of their own."""
    program = [sys.executable, "-m", "benchmarks.serving_clients", str(gateway.port), str(CLIENTS), str(longest)]
    given = json.dumps(
        [[{"role": turn.role, "content": turn.content} for turn in question.messages] for question in questions]
    )
    done = subprocess.run(program, input=given, capture_output=True, text=True, check=True)
    tokens, seconds, _ = json.loads(done.stdout)
    return Round(len(questions), tokens, seconds)


@contextmanager
def _transformers(settings: Settings) -> Iterator[Callable[[str, list[list[int]], int], Round]]:
    """The process of `rivals.transformers_answers`, in the numbers that the gateway computes in."""
    from babylon_assets.serving.engine.number_formats import engine_dtype

    base, threads = str(settings.training.base_model), str(settings.training.threads)
    command = [sys.executable, "-m", "benchmarks.rivals.transformers_answers", base, engine_dtype(Path(base)), threads]
    environment, log = {**os.environ, "OMP_NUM_THREADS": threads}, settings.home / "transformers.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        given, taken = process.stdin, process.stdout

        def ask(way: str, prompts: list[list[int]], max_tokens: int) -> Round:
            print(json.dumps({"way": way, "prompts": prompts, "max_tokens": max_tokens}), file=given, flush=True)
            answered = taken.readline()
            if not answered:
                raise RuntimeError(f"transformers failed:\n{log.read_text()[-2000:]}")
            return Round(*json.loads(answered))

        yield ask
        given.close()


def _peak_gb(pid: int) -> float:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e9


def _measure_training(settings: Settings, folder: Path, home: Path) -> list[Row]:
    rows = []
    for style in STYLES:
        groups = _draw_samples(settings.replace(simulation_style=style), GROUPS[style])
        work = _work(settings)
        ours = _rate(run_trainer(folder, "our_trainer", work, groups)["steps"])
        environment = trl_environment(home, work["threads"])
        trl = _rate(run_trainer(folder, "trl_trainer", work, groups, environment=environment)["steps"][1:])
        rows += [
            Row(f"{style}: training, packed with shared prompts", ours, "tokens/s"),
            Row(f"{style}: training, TRL's padded batch", trl, "tokens/s"),
            at_least(f"{style}: training against TRL's padded batch", ours / trl, "times", 2),
        ]
    return rows


def _measure_memory(settings: Settings, folder: Path) -> list[Row]:
    rows = []
    for style in STYLES:
        groups = _draw_samples(settings.replace(simulation_style=style), WINDOW_GROUPS[style])
        home = folder / style  # of a first checkpoint each
        home.mkdir()
        peak = run_trainer(home, "our_trainer", _work(settings), groups, "window")["peak_mb"] / 1000
        rows.append(at_most(f"{style}: peak memory of the trainer", peak, "GB", 2.5))
    return rows


def _work(settings: Settings) -> dict[str, Any]:
    from babylon_assets.training.backends.embedded.manifest import trainer_settings

    base = str(settings.training.base_model)
    chosen = trainer_settings(settings, base)
    return {
        "base": base,
        "dtype": chosen["dtype"],
        "threads": settings.training.threads,
        "rank": chosen["lora_rank"],
        "learning_rate": chosen["learning_rate"],
        "seed": chosen["seed"],
        "batch": TRL_BATCH,
        "gradient_checkpointing": True,
    }


def _rate(steps: Sequence[dict[str, float]]) -> float:
    return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)


def _draw_samples(settings: Settings, count: int) -> list[list[RecordedSample]]:
    """Groups of eight players who saw the same board, with the expert's answers and rewards that are drawn."""
    from transformers import AutoTokenizer

    from babylon_assets.serving.engine.texts import ChatTokenizer

    base, rng = str(settings.training.base_model), random.Random(0)
    chat, tokenizer = ChatTokenizer(Path(base)), AutoTokenizer.from_pretrained(base)
    groups: dict[str, list[RecordedSample]] = {}
    for question in draw_questions(settings, 8 * count):
        answer = [*tokenizer.encode(question.answer, add_special_tokens=False), chat.end]
        sample = RecordedSample(chat.prompt(question.messages), answer, [-1.0] * len(answer), rng.uniform(-1, 1))
        groups.setdefault(question.group, []).append(sample)
    return list(groups.values())


if __name__ == "__main__":
    main()
