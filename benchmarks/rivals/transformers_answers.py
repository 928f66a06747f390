"""Answers by transformers alone, in a process of their own: `generate` per request, and its continuous batching.

`python -m benchmarks.rivals.transformers_answers BASE DTYPE THREADS` reads a line of JSON per round from standard
input, `{"way": "generate" or "continuous", "prompts": [[token, ...], ...], "max_tokens": n}`, and prints a line for
each: answers, tokens of answers, and seconds. Prompts come as tokens, and no HTTP is between: that is to its advantage.

Of continuous batching, `generate_batch` is given all prompts at once, which it sorts so that common beginnings are read
once. Its cache has room for `SIDE_BY_SIDE` answers. Of 64, 256 and 1,024 tokens a step, 64 answer most a second here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Answers that transformers' paged cache has room for; tokens of one block of it; tokens that one step takes.
SIDE_BY_SIDE, BLOCK_TOKENS, STEP_TOKENS = 32, 32, 64


def _load(base: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    return model.eval()


def _sampling(model: Any, max_tokens: int) -> Any:
    """Plain sampling at temperature 1 from the whole vocabulary, as the gateway samples."""
    from transformers import GenerationConfig

    end = model.generation_config.eos_token_id
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_tokens,
        eos_token_id=end,
        pad_token_id=end[0] if isinstance(end, list) else end,
    )


def _generate(model: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> int:
    import torch

    config, tokens = _sampling(model, max_tokens), 0
    for prompt in prompts:
        given = torch.tensor([prompt])
        with torch.inference_mode():
            out = model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)
        tokens += out.shape[1] - given.shape[1]
    return tokens


def _generate_continuously(model: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> int:
    config = _sampling(model, max_tokens)
    longest = max(map(len, prompts)) + max_tokens
    config.num_blocks = SIDE_BY_SIDE * -(-longest // BLOCK_TOKENS)
    config.max_batch_tokens = STEP_TOKENS
    answers = model.generate_batch([list(prompt) for prompt in prompts], generation_config=config, progress_bar=False)
    if len(answers) != len(prompts):
        raise RuntimeError(f"transformers answered {len(answers)} of {len(prompts)} prompts")
    return sum(len(answer.generated_tokens) for answer in answers.values())


def main() -> None:
    """Answer the rounds that standard input names."""
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # transformers prints beside its log
    torch.set_num_threads(int(sys.argv[3]))
    # The paged attention that continuous batching sets stays with a model, so that each way has a model of its own.
    models = {way: _load(Path(sys.argv[1]), sys.argv[2]) for way in ("generate", "continuous")}
    ways = {"generate": _generate, "continuous": _generate_continuously}
    for line in sys.stdin:
        told = json.loads(line)
        started = time.perf_counter()
        tokens = ways[told["way"]](models[told["way"]], told["prompts"], told["max_tokens"])
        print(json.dumps([len(told["prompts"]), tokens, time.perf_counter() - started]), file=answers, flush=True)


if __name__ == "__main__":
    main()
