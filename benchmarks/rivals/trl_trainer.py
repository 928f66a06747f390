"""TRL's own GRPOTrainer on recorded samples, in a process of its own.

`python -m benchmarks.rivals.trl_trainer FOLDER` reads `work.json` and `samples.json` in a folder and trains a LoRA
adapter on the samples. TRL's are the trainer, the advantages (the reward less its group's mean, divided by the group's
standard deviation), the loss (`dapo`), the batches (prompts repeated, padded on both sides to the longest of a batch),
the optimizer (AdamW of transformers' Trainer) and the clipping of gradients, all at their defaults. Ours are the
samples, which `rollout_func` hands over in place of answers that TRL would sample, their rewards, and the adapter's
shape and learning rate.

`result.json` then says what each step took: seconds on a CPU, and tokens of prompts and answers that it was given.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rivals.samples import RecordedSample, read_samples


def main() -> None:
    """Train as the folder's files say."""
    import torch

    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    torch.set_num_threads(work["threads"])
    groups = read_samples(folder / "samples.json")
    trainer, clock = _trainer(work, groups, folder)
    _restore(trainer, work.get("optimizer"))
    trainer.train()
    if work.get("adapter_to"):
        trainer.model.save_pretrained(work["adapter_to"])
        torch.save(trainer.optimizer.state_dict(), Path(work["adapter_to"]) / "optimizer.pt")
    (folder / "result.json").write_text(json.dumps({"steps": clock.steps, "peak_mb": _peak_mb()}))


def _trainer(work: dict[str, Any], groups: list[list[RecordedSample]], folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]

    model: Any = AutoModelForCausalLM.from_pretrained(work["base"], dtype=getattr(torch, work["dtype"]))
    if work.get("adapter_from"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, work["adapter_from"], is_trainable=True)
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=work["batch"],
        num_generations=len(groups[0]),
        max_completion_length=max(len(sample.token_ids) for group in groups for sample in group),
        learning_rate=work["learning_rate"],
        lr_scheduler_type="constant",
        num_train_epochs=1,
        use_cpu=True,
        bf16=work["dtype"] == "bfloat16",
        gradient_checkpointing=work["gradient_checkpointing"],
        shuffle_dataset=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=work["seed"],
    )
    clock = _step_clock(groups, work["batch"], work.get("seconds"))
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=_recorded_reward,
        args=config,
        train_dataset=_dataset(len(groups)),
        processing_class=AutoTokenizer.from_pretrained(work["base"]),
        peft_config=None if work.get("adapter_from") else _adapter(work),
        rollout_func=_Rollout(groups),
        callbacks=[clock],
    )
    return trainer, clock


def _adapter(work: dict[str, Any]) -> Any:
    from peft import LoraConfig

    from babylon_assets.training.adapters import TARGETS

    rank = work["rank"]
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, task_type="CAUSAL_LM")


def _dataset(groups: int) -> Any:
    """A row per group, whose number stands for its prompt. The fingerprint is given: datasets would hash for one."""
    from datasets import Dataset  # type: ignore[import-not-found]
    from datasets.table import InMemoryTable  # type: ignore[import-not-found]

    rows = InMemoryTable.from_pydict({"prompt": [str(number) for number in range(groups)]})
    return Dataset(rows, fingerprint="recorded")


class _Rollout:
    """What TRL calls to have prompts answered: hands over the recorded answers of each prompt's group."""

    def __init__(self, groups: list[list[RecordedSample]]) -> None:
        self._groups = groups

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        seen: dict[str, int] = {}
        samples = []
        for prompt in prompts:
            seat = seen[prompt] = seen.get(prompt, -1) + 1
            samples.append(self._groups[int(prompt)][seat])
        return {
            "prompt_ids": [sample.prompt_token_ids for sample in samples],
            "completion_ids": [sample.token_ids for sample in samples],
            "logprobs": [sample.logprobs for sample in samples],
            "recorded_reward": [sample.reward for sample in samples],
        }


def _recorded_reward(prompts: list[str], recorded_reward: list[float], **others: Any) -> list[float]:
    return recorded_reward


def _step_clock(groups: list[list[RecordedSample]], batch: int, seconds: float | None) -> Any:
    """A callback that notes each step's seconds on a CPU and tokens, and ends the training when `seconds` are over."""
    from transformers import TrainerCallback

    samples = [sample for group in groups for sample in group]

    class StepClock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps: list[dict[str, float]] = []
            self._began, self._first = 0.0, 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self._first = time.process_time()

        def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self._began = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
            now, start = time.process_time(), len(self.steps) * batch
            tokens = sum(sample.tokens for sample in samples[start : start + batch])
            self.steps.append({"seconds": now - self._began, "tokens": tokens})
            if seconds is not None and now - self._first >= seconds:
                control.should_training_stop = True
            return control

    return StepClock()


def _restore(trainer: Any, optimizer: str | None) -> None:
    """Go on with the moments of the window before, as one long training would."""
    if optimizer is not None:
        import torch

        trainer.create_optimizer()
        trainer.optimizer.load_state_dict(torch.load(optimizer))


def _peak_mb() -> float:
    from benchmarks.datapath.memory import peak_mb

    return peak_mb()


if __name__ == "__main__":
    main()
