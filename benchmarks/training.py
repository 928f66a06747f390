"""Training: tokens per second of a step beside ART's padding and TRL's, real windows, memory, and where time goes.

One run, one process, layouts in turns. Groups of eight share a prompt. All three layouts go through the same model and
the same chunks of log-probabilities, so that what differs is what they compute on: ART's LocalBackend pads each
sequence to 2,048 tokens and masks densely, TRL pads a batch to its longest. A rate counts the tokens of every
trajectory, prompt and answer, as if nothing was shared, per second of this process's one thread, so that what else runs
on the machine does not count. Figures without a goal are only reported.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from babylon_assets.settings import Settings, load_settings, prepare_libraries
from babylon_assets.store.database import Connection, Database, migrate, open_database, stop_embedded
from babylon_assets.training import trainer
from babylon_assets.training.roots import base_model_of
from babylon_assets.training.trainer import Trainer, TrainerSettings
from benchmarks.report import Row, at_least, at_most, publish

GROUPS_OF, PADDED = 8, 2048
PROMPT, ANSWER = 200, 24
WINDOWS, WARM = 5, 1
FIRST = "2026-10-01T00:00"
#: Shape of Qwen2.5-0.5B; its weights here are random.
HALF_BILLION = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32_768,
}
PPO: Any = {"ppo": True, "epsilon": 0.2}


def main() -> None:
    """Run the bench; `memory BASE` as arguments is its own child, which takes steps and prints what they needed."""
    if sys.argv[1:2] == ["memory"]:
        _take_steps(Path(sys.argv[2]))
        return
    settings = load_settings()
    prepare_libraries(settings)
    torch.set_num_threads(1)
    base = Path(base_model_of(settings))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="babylon-bench-") as scratch:
        parts: list[Callable[[], list[Row]]] = [
            _matmul_peak,
            lambda: _default_model(base),
            lambda: _half_billion(Path(scratch) / "half"),
            lambda: _memory(base),
            lambda: _windows(Path(scratch) / "home", base),
        ]
        for part in parts:
            found = part()
            print(*(f"{row.name}: {row.value:.3f} {row.unit}" for row in found), sep="\n", flush=True)
            rows += found
    publish("training", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


# Layouts


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensors of one optimizer step in some layout, and the trajectory tokens that it trains on.

    Attributes:
        ours: whether the trainer lays the rows out anew, as it does; the others are computed on as they are.
    """

    rows: dict[str, torch.Tensor]
    tokens: int
    ours: bool


def groups_of_eight(count: int, vocabulary: int, prompt: int = PROMPT, answer: int = ANSWER) -> list[list[list[int]]]:
    """Random groups: each the token ids of eight sequences that share a prompt; answers differ in length."""
    generator = torch.Generator().manual_seed(0)

    def drawn(length: int) -> list[int]:
        return [int(token) for token in torch.randint(3, vocabulary, (length,), generator=generator)]

    return [
        [shared + drawn(answer - n % 8) for n in range(GROUPS_OF)] for shared in (drawn(prompt) for _ in range(count))
    ]


def packed(groups: list[list[list[int]]], prompt: int = PROMPT, row_tokens: int = 1024) -> Layout:
    """ART's packing: the prompt once, its answers behind it, rows filled with whole groups as ART fills them."""
    from art.preprocessing.pack import packed_tensors_from_tokenized_results

    results = [_tokenized(sequence, number, prompt) for number, group in enumerate(groups) for sequence in group]
    made = packed_tensors_from_tokenized_results(results, row_tokens, pad_token_id=0)
    rows = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
    return Layout(rows, sum(len(sequence) for group in groups for sequence in group), ours=True)


def padded(groups: list[list[list[int]]], length: int | None, prompt: int = PROMPT) -> Layout:
    """A row per sequence: padded to `length`, or to the longest of them."""
    sequences = [sequence for group in groups for sequence in group]
    width = length or max(map(len, sequences))
    rows = {name: torch.zeros(len(sequences), width, dtype=torch.long) for name in ("tokens", "input_pos")}
    rows |= {name: torch.full((len(sequences), width), -1) for name in ("group_ids", "parent_ids")}
    rows |= {name: torch.zeros(len(sequences), width) for name in ("logprobs", "advantages", "weights")}
    rows["assistant_mask"] = torch.zeros(len(sequences), width, dtype=torch.bool)
    rows["input_pos"] += torch.arange(width)
    for number, sequence in enumerate(sequences):
        rows["tokens"][number, : len(sequence)] = torch.tensor(sequence)
        rows["group_ids"][number, : len(sequence)] = number
        rows["parent_ids"][number, : len(sequence)] = number
        answer = slice(prompt, len(sequence))
        rows["assistant_mask"][number, answer] = True
        rows["weights"][number, answer] = 1.0
        rows["advantages"][number, answer] = 1.0 if number % 2 else -1.0
        rows["logprobs"][number, answer] = -6.0
    return Layout(rows, sum(map(len, sequences)), ours=False)


def _tokenized(sequence: list[int], group: int, prompt: int) -> Any:
    from art import Trajectory
    from art.preprocessing.tokenize import TokenizedResult

    answer = len(sequence) - prompt
    result = TokenizedResult(
        advantage=1.0 if sum(sequence) % 2 else -1.0,
        chat="",
        token_ids=sequence,
        input_pos=list(range(len(sequence))),
        assistant_mask=[0] * prompt + [1] * answer,
        logprobs=[float("nan")] * prompt + [-6.0] * answer,
        pixel_values=None,
        image_grid_thw=None,
        trajectory=Trajectory(messages_and_choices=[], reward=0.0),
        choice_offsets=[],
        extra_logprobs={},
        _tokenizer=cast(Any, None),
    )
    result.prompt_id, result.prompt_length, result.weight = group + 1, prompt, 1.0
    return result


def rate(model: Trainer, layout: Layout, repeats: int, rows_at_once: int | None = None) -> float:
    """Trajectory tokens per second of the fastest of some optimizer steps: forward, backward, clipping, AdamW."""
    count = len(layout.rows["tokens"])
    size = rows_at_once or count
    share = min(size, count) / count
    step = {name: value[:size] for name, value in layout.rows.items()}
    lay_out = trainer.compacted
    trainer.compacted = lay_out if layout.ours else lambda rows: rows  # type: ignore[attr-defined]
    try:
        best = min(_timed(lambda: model.policy_gradient_step(step, PPO)) for _ in range(repeats))
    finally:
        trainer.compacted = lay_out  # type: ignore[attr-defined]
    return layout.tokens * share / best


def _timed(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


# Parts


def _matmul_peak() -> list[Row]:
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one, other = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        best = min(_timed(lambda one=one, other=other: one @ other) for _ in range(20))  # type: ignore[misc]
        rows.append(Row(f"matmul peak, {name}", 2 * 1024**3 / best / 1e9, "GFLOP/s"))
    return rows


def _default_model(base: Path) -> list[Row]:
    groups = groups_of_eight(6, _vocabulary(base))
    rows = []
    for dtype in ("float32", "bfloat16"):
        model = Trainer(str(base), None, TrainerSettings(max_kl=1e9, dtype=dtype))
        ours = rate(model, packed(groups), 5)
        art = rate(model, padded(groups, PADDED), 2, rows_at_once=4)
        trl = rate(model, padded(groups, None), 4)
        rows += _compared("default model" if dtype == "float32" else "default model, bf16", ours, art, trl)
    return rows


def _vocabulary(base: Path) -> int:
    return int(json.loads((base / "config.json").read_text())["vocab_size"])


def _half_billion(folder: Path) -> list[Row]:
    """The same for a 0.5B shape with random weights; in the numbers that TRAIN_DTYPE=auto takes, and in fp32."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from babylon_assets.training.precision import train_dtype

    config = Qwen2Config(**HALF_BILLION)
    config.save_pretrained(folder)
    chosen = train_dtype(Settings(), str(folder))
    weights = Qwen2ForCausalLM(config)
    weights.save_pretrained(folder)
    del weights
    groups = groups_of_eight(2, HALF_BILLION["vocab_size"])
    rows = []
    for dtype in dict.fromkeys((chosen, "float32")):
        model = Trainer(str(folder), None, TrainerSettings(max_kl=1e9, dtype=dtype))
        ours = rate(model, packed(groups), 2)
        trl = rate(model, padded(groups[:1], None), 1)
        art = rate(model, padded(groups[:1], PADDED), 1, rows_at_once=1) if dtype == chosen else None
        rows += _compared(f"0.5B shape, {dtype}", ours, art, trl, goals=dtype == chosen)
        del model
    return rows


def _compared(name: str, ours: float, art: float | None, trl: float, goals: bool = True) -> list[Row]:
    rows = [Row(f"{name}: packed with shared prompts", ours, "tokens/s"), Row(f"{name}: TRL's batch", trl, "tokens/s")]
    limit = at_least if goals else lambda name, value, unit, _: Row(name, value, unit)
    if art is not None:
        rows += [
            Row(f"{name}: each padded to {PADDED}", art, "tokens/s"),
            limit(f"{name}: against ART's padding", ours / art, "times", 30),
        ]
    return [*rows, limit(f"{name}: against TRL's batch", ours / trl, "times", 2)]


def _memory(base: Path) -> list[Row]:
    """Peak memory of a fresh process that takes three steps of three full rows, as a window does."""
    command = [sys.executable, "-m", "benchmarks.training", "memory", str(base)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [
        at_most("peak memory of a training step, default model", float(printed[-1]), "GB", 1.5),
        Row("of which torch, ART and the model before the first step", float(printed[-2]), "GB"),
    ]


def _take_steps(base: Path) -> None:
    prepare_libraries(Settings())
    import babylon_assets.training.embedded  # noqa: F401 - what a training process has loaded

    torch.set_num_threads(1)
    rows = packed(groups_of_eight(24, _vocabulary(base))).rows
    model = Trainer(str(base), None, TrainerSettings(max_kl=1e9))
    before = _peak_gigabytes()
    for start in range(0, 9, 3):
        model.policy_gradient_step({name: value[start : start + 3] for name, value in rows.items()}, PPO)
    print(before, _peak_gigabytes())


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# Windows


class Watch:
    """Seconds spent in some functions, by a name; a function that is called inside another of them counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    @contextmanager
    def on(self, *places: tuple[str, Any, str]) -> Iterator[None]:
        """Watch (name, owner, attribute) until the end of the block."""
        before = [(owner, attribute, getattr(owner, attribute)) for _, owner, attribute in places]
        try:
            for name, owner, attribute in places:
                setattr(owner, attribute, self._watched(name, getattr(owner, attribute)))
            yield
        finally:
            for owner, attribute, function in before:
                setattr(owner, attribute, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return function(*arguments, **named)
            self._inside, started = True, time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[name] += time.perf_counter() - started
                self._inside = False

        return watched


def _windows(home: Path, base: Path) -> list[Row]:
    """Some windows of the demo, played and trained in this process, first by the functions, then as Dagster runs."""
    shutil.copytree(base, home / "base_models" / base.name)
    settings = Settings(home=home, backend="embedded", window_start=FIRST, gate=False)
    try:
        database = open_database(settings)
        migrate(database)
        return _played(settings, database, base)
    finally:
        stop_embedded(settings)


def _played(settings: Settings, database: Database, base: Path) -> list[Row]:
    from babylon_assets.assets.installation import Installation
    from babylon_assets.commands.simulated_game import create_tables
    from babylon_assets.core.windows import next_window
    from babylon_assets.serving.engine import Engine

    create_tables(database)
    installation, engine = Installation(settings, database), Engine(base, "babylon-agent@0")
    windows = [FIRST]
    while len(windows) < 2 * WINDOWS:
        windows.append(next_window(windows[-1]))
    plain, plain_wall, rates = _by_functions(installation, engine, windows[:WINDOWS])
    runs, runs_wall = _by_dagster(installation, engine, windows[WINDOWS:])
    counted = WINDOWS - WARM
    return [
        Row("real grouping: default model, windows of the demo", statistics.fmean(rates), "tokens/s"),
        *_shares("by its functions", plain, plain_wall, counted, at_most),
        *_shares("as a Dagster run with its pictures", runs, runs_wall, counted, None),
    ]


def _watched_places() -> list[tuple[str, Any, str]]:
    """What is reading, sampling and optimizer steps, by where it is called."""
    from babylon_assets.assets import raw_trajectories, scored_trajectories, training_datasets
    from babylon_assets.serving.engine import Engine

    steps = ("policy_gradient_step", "undo_if_too_far", "retry_smaller", "note_kl_to_parent")
    return [
        ("reading", raw_trajectories, "copy_window"),
        ("reading", scored_trajectories, "score_window"),
        ("reading", training_datasets, "freeze_window"),
        *(("steps", trainer.Trainer, name) for name in steps),
        ("sampling", Engine, "complete"),
    ]


def _by_functions(installation: Any, engine: Any, windows: list[str]) -> tuple[Watch, float, list[float]]:
    """Play and train some windows by calling what the assets call, one after the other."""
    from babylon_assets.assets import raw_trajectories, scored_trajectories, training_datasets
    from babylon_assets.training.jobs import train_window

    watch, wall, rates = Watch(), 0.0, []
    for number, window in enumerate(windows):
        seen = watch if number >= WARM else Watch()
        with seen.on(*_watched_places()), installation.connect() as conn:
            started = time.perf_counter()
            _play(installation.settings, conn, engine, window)
            raw_trajectories.copy_window(installation, window)
            scored_trajectories.score_window(installation, window)
            training_datasets.freeze_window(installation, window)
            result = train_window(installation.settings, installation.database, window)
            wall += (time.perf_counter() - started) * (number >= WARM)
        if number >= WARM and result.steps:
            rates.append(_real_rate(installation.database, result))
    return watch, wall, rates


def _by_dagster(installation: Any, engine: Any, windows: list[str]) -> tuple[Watch, float]:
    """The same as recorded Dagster runs of the whole line, evaluation and pictures included."""
    from babylon_assets.automation.instance import open_instance
    from babylon_assets.automation.line import Line
    from babylon_assets.definitions import build_definitions

    watch, wall = Watch(), 0.0
    with open_instance(installation.settings, installation.database) as instance:
        line = Line(build_definitions(installation.settings, installation=installation), instance)
        for number, window in enumerate(windows):
            seen = watch if number >= WARM else Watch()
            with seen.on(*_watched_places()):
                started = time.perf_counter()
                with installation.connect() as conn:
                    _play(installation.settings, conn, engine, window)
                line.materialize(window)
                wall += (time.perf_counter() - started) * (number >= WARM)
    return watch, wall


def _play(settings: Settings, conn: Connection, engine: Any, window: str) -> None:
    """Play a window with the newest policy, by the engine in this process."""
    from babylon_assets.core.policies import policy_name
    from babylon_assets.simulation.players import play_window
    from babylon_assets.store import checkpoints

    made = checkpoints.head(conn, settings.model_name)
    name = policy_name(settings.model_name, made.step if made else 0)
    if engine.name != name:
        engine.activate(Path(made.path) if made and made.path else None, name)
    play_window(settings, conn, window, engine)
    conn.commit()


def _shares(name: str, watch: Watch, wall: float, windows: int, limit: Any) -> list[Row]:
    rest = 1 - sum(watch.seconds.values()) / wall
    figure = f"rest of a window {name}: not reading, sampling or steps"
    parts = [Row(f"a window {name}: {part}", seconds / windows, "s") for part, seconds in sorted(watch.seconds.items())]
    share = limit(figure, rest, "share", 0.15) if limit else Row(figure, rest, "share")
    return [Row(f"a window {name}", wall / windows, "s"), *parts, share]


def _real_rate(database: Database, result: Any) -> float:
    """Trajectory tokens of a trained window per second of its optimizer steps."""
    from babylon_assets.store.datasets import load_dataset

    with database.connect() as conn:
        dataset = load_dataset(conn, result.checkpoint.dataset_id)
    trained = [sample for sample in dataset.samples if sample.trains_as == "policy_gradient"]
    tokens = sum(len(sample.prompt_token_ids or []) + len(sample.token_ids or []) for sample in trained)
    seen = sum(step["tokens"] for step in result.steps)
    share = seen / max(1, sum(len(sample.token_ids or []) for sample in trained))
    return tokens * share / sum(step["seconds"] for step in result.steps)


if __name__ == "__main__":
    main()
