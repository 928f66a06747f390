"""The project's own small base model: made on first use, measured, and refused if it could not learn.

A Qwen2-architecture model of about half a million parameters is taught the format of orders by imitating a teacher that
mostly acts at random. It is made from a seed in about a minute on one core and kept under the home folder in a
folder named after its recipe, so that another recipe is another model. Training it further is not done here.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.domain.lineage import content_id
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.simulated.demonstrations import Demonstration, draw_demonstrations
from babylon_assets.environments.simulated.language import ANSWER_TOKENS, InvalidOrderError, parse_order
from babylon_assets.environments.simulated.market import legal_orders, news_order

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

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what the base model becomes; its hash names the folder."""

    version: int = 1
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
    #: A base that acts on the news less often than this many times chance is refused: it would not learn.
    least_signal: float = 1.8
    #: Share of its answers that must be orders that can be carried out.
    least_valid: float = 0.9


@dataclass(frozen=True, slots=True)
class BaseModelMeasurement:
    """What a base model does on boards that it has not seen, sampled at temperature 1."""

    answers: int
    valid: float
    on_news: float
    chance: float


def ensure_base_model(
    home: Path,
    recipe: Recipe | None = None,
    *,
    open_policy: Callable[[Path], Policy],
    progress: Progress | None = None,
) -> Path:
    """Return the folder of the base model, making it if it is not there yet.

    Args:
        open_policy: answers with a model's folder; what was made is measured with it.

    The folder appears by a rename when it is complete, so a killed process leaves nothing that looks like a model.

    Raises:
        BaseModelRefused: what was made answers invalidly, or acts on the news no more often than chance.
    """
    recipe = recipe or Recipe()
    folder = home / "base_models" / f"babylon-small-{content_id(asdict(recipe))[:12]}"
    if (folder / "measurement.json").is_file():
        return folder
    building = folder.with_name(f"{folder.name}.building-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _make(recipe, building, open_policy, progress or (lambda _what, _share: None))
        _appear(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _appear(building: Path, folder: Path) -> None:
    """Rename; when another process has finished the same recipe first, the same model lies there already."""
    try:
        building.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _make(recipe: Recipe, folder: Path, open_policy: Callable[[Path], Policy], progress: Progress) -> None:
    import torch

    lessons = list(draw_demonstrations(recipe.seed, recipe.steps * recipe.batch))
    tokenizer = _train_tokenizer(recipe, lessons[:2000], folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _new_model(recipe, tokenizer)
        _teach(model, tokenizer, lessons, recipe, progress)
    model.save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    measurement = measure(open_policy(folder), seed=recipe.seed + 1)
    _refuse_unless_learnable(measurement, recipe)
    (folder / "measurement.json").write_text(json.dumps(asdict(measurement), indent=2))


def _train_tokenizer(recipe: Recipe, lessons: list[Demonstration], folder: Path) -> PreTrainedTokenizerBase:
    """Byte-level BPE over the lessons' text. The ids that ART uses as sentinels must survive a round trip."""
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
    raw.train_from_iterator((_plain_text(lesson) for lesson in lessons), trainer)
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


def _plain_text(lesson: Demonstration) -> str:
    turns = [(message.role, message.content) for message in lesson.messages] + [("assistant", lesson.answer)]
    return "\n".join(f"{role}\n{content}" for role, content in turns)


def _write_qwen2_config(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "Qwen2Tokenizer"
    path.write_text(json.dumps(config, indent=2))


def _new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
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


def _teach(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    lessons: list[Demonstration],
    recipe: Recipe,
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
        tokens, labels = _lesson_batch(tokenizer, lessons[step * recipe.batch : (step + 1) * recipe.batch])
        hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
        taught = labels[:, 1:] != -100
        logits = model.lm_head(hidden[taught])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][taught])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress("teaching the base model", (step + 1) / recipe.steps)
    model.eval()


def _lesson_batch(
    tokenizer: PreTrainedTokenizerBase, lessons: list[Demonstration]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids [lessons, longest] and labels, -100 where nothing is taught."""
    import torch

    prompts = [lesson_prompt(tokenizer, lesson) for lesson in lessons]
    answers = tokenizer([lesson.answer + tokenizer.eos_token for lesson in lessons], add_special_tokens=False)[
        "input_ids"
    ]
    longest = max(len(prompt) + len(reply) for prompt, reply in zip(prompts, answers, strict=True))
    tokens = torch.full((len(lessons), longest), int(tokenizer.pad_token_id))
    labels = torch.full((len(lessons), longest), -100)
    for row, (prompt, reply) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(reply)
        tokens[row, :end] = torch.tensor(prompt + reply)
        labels[row, len(prompt) : end] = torch.tensor(reply)
    return tokens, labels


def lesson_prompt(tokenizer: PreTrainedTokenizerBase, lesson: Demonstration) -> list[int]:
    """Token ids of a lesson's conversation up to where the answer begins."""
    messages = [{"role": message.role, "content": message.content} for message in lesson.messages]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def measure(policy: Policy, seed: int, count: int = 512) -> BaseModelMeasurement:
    """Sample `count` answers on unseen boards and see how many are valid and how many act on the news."""
    lessons = list(draw_demonstrations(seed, count))
    completions = policy.complete([lesson.messages for lesson in lessons], range(count), max_tokens=ANSWER_TOKENS)
    valid = on_news = 0
    chance = sum(1 / len(legal_orders(lesson.board)) for lesson in lessons) / count
    for lesson, completion in zip(lessons, completions, strict=True):
        try:
            order = parse_order(completion.text, lesson.board)
        except InvalidOrderError:
            continue
        valid += 1
        on_news += order == news_order(lesson.board)
    return BaseModelMeasurement(count, valid / count, on_news / count, chance)


def _refuse_unless_learnable(measured: BaseModelMeasurement, recipe: Recipe) -> None:
    if measured.valid >= recipe.least_valid and measured.on_news >= recipe.least_signal * measured.chance:
        return
    raise BaseModelRefused(
        f"the base model made by {recipe} answers validly in {measured.valid:.0%} of cases (at least "
        f"{recipe.least_valid:.0%} is needed) and acts on the news in {measured.on_news:.0%} (chance is "
        f"{measured.chance:.0%}, at least {recipe.least_signal} times that is needed): it could not learn. "
        "Make it with more steps or another seed, or set BASE_MODEL to a model of your own."
    )
