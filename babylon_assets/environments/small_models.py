"""A small model for an environment that has none: taught from demonstrations, in a minute on one core.

A model of the Qwen2 architecture with a tokenizer of the demonstrations' own words. The same recipe and demonstrations
give the same model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from babylon_assets.domain.chat_tokens import chat_tokens
from babylon_assets.domain.trajectories import Message

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

#: The chat template: ChatML, as the Qwen2 family has it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% if not (loop.last and continue_final_message is defined and continue_final_message) %}"
    "{{ '<|im_end|>\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Qwen2's own pre-tokenizer. AutoTokenizer uses it for a Qwen2 folder whatever was saved, so it is what we train with.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

#: Demonstrations that the tokenizer's words are taken from.
TOKENIZER_DEMONSTRATIONS = 2000

Progress = Callable[[str, float], None]


class Demonstration(Protocol):
    """A conversation up to where the answer begins, and the answer to imitate."""

    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def answer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """How large a model is and how it is taught: `steps` batches of `batch` demonstrations each.

    Attributes:
        vocabulary: tokens, of which 256 are single bytes.
        init_std: standard deviation of the first weights.
        context: longest conversation in tokens, answer included.
    """

    seed: int = 0
    vocabulary: int = 420
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    feed_forward: int = 512
    init_std: float = 0.08
    context: int = 8192
    steps: int = 200
    batch: int = 48
    learning_rate: float = 5e-3


def make_small_model(
    recipe: ModelRecipe, demonstrations: Sequence[Demonstration], folder: Path, progress: Progress | None = None
) -> None:
    """Write a model that imitates `recipe.steps * recipe.batch` demonstrations into a folder that is there."""
    import torch

    tokenizer = _train_tokenizer(recipe, demonstrations[:TOKENIZER_DEMONSTRATIONS], folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _new_model(recipe, tokenizer)
        _fit(model, tokenizer, demonstrations, recipe, progress or (lambda _what, _share: None))
    model.save_pretrained(folder)


def _train_tokenizer(
    recipe: ModelRecipe, demonstrations: Sequence[Demonstration], folder: Path
) -> PreTrainedTokenizerBase:
    """Byte-level BPE over the demonstrations' text. The ids that ART uses as sentinels must survive a round trip."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator((_plain_text(demonstration) for demonstration in demonstrations), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=recipe.context,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    _write_qwen2_config(folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def _plain_text(demonstration: Demonstration) -> str:
    turns = [(message.role, message.content) for message in demonstration.messages] + [
        ("assistant", demonstration.answer)
    ]
    return "\n".join(f"{role}\n{content}" for role, content in turns)


def _write_qwen2_config(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "Qwen2Tokenizer"
    path.write_text(json.dumps(config, indent=2))


def _new_model(recipe: ModelRecipe, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        initializer_range=recipe.init_std,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def _fit(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Sequence[Demonstration],
    recipe: ModelRecipe,
    progress: Progress,
) -> None:
    """Imitation: cross-entropy on the tokens of the answer and its end of turn, AdamW, one cosine to zero."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    model.train()
    for step in range(recipe.steps):
        tokens, labels = _demonstration_batch(
            tokenizer, demonstrations[step * recipe.batch : (step + 1) * recipe.batch]
        )
        hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
        taught = labels[:, 1:] != -100
        logits = model.lm_head(hidden[taught])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][taught])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress("preparing the base model", (step + 1) / recipe.steps)
    model.eval()


def _demonstration_batch(
    tokenizer: PreTrainedTokenizerBase, demonstrations: Sequence[Demonstration]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids [demonstrations, longest] and labels, -100 where nothing is taught."""
    import torch

    prompts = [_demonstration_prompt(tokenizer, demonstration) for demonstration in demonstrations]
    end_of_turn = int(tokenizer.eos_token_id)
    answers = [[*chat_tokens(tokenizer).answer(demonstration.answer), end_of_turn] for demonstration in demonstrations]
    longest = max(len(prompt) + len(reply) for prompt, reply in zip(prompts, answers, strict=True))
    tokens = torch.full((len(demonstrations), longest), int(tokenizer.pad_token_id))
    labels = torch.full((len(demonstrations), longest), -100)
    for row, (prompt, reply) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(reply)
        tokens[row, :end] = torch.tensor(prompt + reply)
        labels[row, len(prompt) : end] = torch.tensor(reply)
    return tokens, labels


def _demonstration_prompt(tokenizer: PreTrainedTokenizerBase, demonstration: Demonstration) -> list[int]:
    """Token ids of a demonstration's conversation up to where the answer begins."""
    messages = [{"role": message.role, "content": message.content} for message in demonstration.messages]
    return chat_tokens(tokenizer).prompt(messages)
