"""A training backend in one file: it raises the logit of one token, and calls that training.

The token is the first one of the best answer. The bias is a LoRA adapter of rank 1 on the output layer: its input side
is the hidden state from which that token was drawn, so that its logit rises by BIAS there, and by less or more where
the hidden state is another one.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from babylon_assets import (
    Attempt,
    Availability,
    Capabilities,
    Settings,
    TrainedCheckpoint,
    TrainingBackend,
    TrainingRequest,
    checkpoint_folder,
    prepare_libraries,
    publish_checkpoint,
    require_local,
    train_in_folder,
)

BIAS = 2.0


class BiasBackend(TrainingBackend):
    name = "bias"
    title = "the bias backend"
    capabilities = Capabilities(imitates=False)

    def availability(self, settings: Settings) -> Availability:
        return Availability("it needs nothing but a processor")

    def require_base_model(self, base_model: str) -> None:
        require_local(base_model)

    def find_base_model(self, settings: Settings) -> str:
        return "Qwen/Qwen2.5-0.5B-Instruct"

    def manifest_settings(self, settings: Settings, base_model: str) -> dict[str, Any]:
        return {"bias": BIAS}

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("torch", "peft")}

    def train(
        self, settings: Settings, request: TrainingRequest, attempt: Attempt | None = None
    ) -> TrainedCheckpoint | None:
        with attempt.running() if attempt else nullcontext():
            return train_in_folder(settings, request, add_bias)


def add_bias(settings: Settings, request: TrainingRequest) -> None:
    """Write the parent's adapter with one more bias as the checkpoint's folder."""
    prepare_libraries(settings)
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    assert request.place is not None
    started = time.perf_counter()
    best = max(request.samples.policy_gradient, key=lambda sample: sample.reward or 0.0)
    prompt, answer = best.prompt_token_ids or [], best.token_ids or []
    model: Any = AutoModelForCausalLM.from_pretrained(request.base_model, dtype=torch.float32)
    with torch.no_grad():
        state = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        if request.place.parent is None:
            model = get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules=["lm_head"]))
            model.base_model.model.lm_head.lora_A["default"].weight[0] = state / state.dot(state)
        else:
            model = PeftModel.from_pretrained(model, str(request.place.parent), is_trainable=True)
        model.base_model.model.lm_head.lora_B["default"].weight[answer[0], 0] += BIAS
    steps = [{"tokens": 1.0, "seconds": time.perf_counter() - started}]
    with tempfile.TemporaryDirectory() as work:
        model.save_pretrained(work, save_embedding_layers=False)
        final = checkpoint_folder(settings, request.chain, request.place.step)
        publish_checkpoint(Path(work), request.manifest, steps, final)
