"""Training: tokens per second of a step beside ART's padding and TRL's, real windows, memory, and where time goes.

One run, one process, layouts in turns. Groups of eight share a prompt. All three layouts go through the same model and
the same chunks of log-probabilities, so that what differs is what they compute on: ART's LocalBackend pads each
sequence to 2,048 tokens and masks densely, TRL pads a batch to its longest. A rate counts the tokens of every
trajectory, prompt and answer, as if nothing was shared, per second of this process's one thread, so that what else runs
on the machine does not count. Figures without a goal are only reported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from babylon_assets.config.settings import Settings, load_settings, prepare_libraries
from babylon_assets.training.backends.embedded.trainer import Trainer, TrainerSettings
from babylon_assets.training.roots import base_model_of
from benchmarks.datapath.memory import peak_mb
from benchmarks.learner.layouts import PPO, cpu_seconds, groups_of_eight, packed, padded, rate
from benchmarks.learner.windows import windows_rows
from benchmarks.report import Row, at_least, at_most, publish

PADDED = 2048
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
            lambda: windows_rows(Path(scratch) / "home", base),
        ]
        for part in parts:
            found = part()
            print(*(f"{row.name}: {row.value:.3f} {row.unit}" for row in found), sep="\n", flush=True)
            rows += found
    publish("training", rows, settings.home)
    sys.exit(0 if all(row.holds is not False for row in rows) else 1)


def _matmul_peak() -> list[Row]:
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one, other = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        best = min(cpu_seconds(lambda one=one, other=other: one @ other) for _ in range(20))  # type: ignore[misc]
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
    import babylon_assets.training.backends.embedded.art_backend  # noqa: F401 - what a training process has loaded

    torch.set_num_threads(1)
    rows = packed(groups_of_eight(24, _vocabulary(base))).rows
    model = Trainer(str(base), None, TrainerSettings(max_kl=1e9))
    before = peak_mb() / 1000
    for start in range(0, 9, 3):
        model.policy_gradient_step({name: value[start : start + 3] for name, value in rows.items()}, PPO)
    print(before, peak_mb() / 1000)


if __name__ == "__main__":
    main()
