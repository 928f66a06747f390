"""The tokenizer of a GGUF file, built from the file's own fields.

A file has the words, their order and merges, the special tokens and the chat template. Of how a text is cut before the
merges it has only the name of the rule; the rules are here, by those names. A file with another rule is refused: a
model that reads wrongly cut texts still answers, only worse.

The chat template is the file's own. That of SmolLM2 begins a conversation that has no system turn with the one that the
model was tuned with, and so does ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.environments.small_models import QWEN2_PATTERN

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

Fields = Mapping[str, Any]

#: Llama 3 and its descendants: digits in threes.
_LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
#: What `tokenizer.ggml.token_type` says of a token: it is markup, or a word that was added to the merged ones.
_CONTROL, _ADDED = 3, 4
#: Texts of which every folder is checked to make the tokens that the file's own fields make.
PROBES = (
    '{"action":"buy_yes","target":"A"} 1234567 3.14%',
    "  two spaces, a\ttab\nand lines\n\n  it's 12:45 -- Café, naïve, 東京, 🙂",
    "<|im_start|>user\nhello<|im_end|>\n",
)


def build_tokenizer(fields: Fields, name: str) -> PreTrainedTokenizerFast:
    """The tokenizer with the chat template, from the fields of the file called `name`.

    Raises:
        BaseModelRefused: a kind of vocabulary or a rule of cutting that is not known here, or no chat template.
    """
    from transformers import PreTrainedTokenizerFast

    template = fields.get("tokenizer.chat_template")
    if not template:
        raise BaseModelRefused(
            f"{name} has no chat template, so no conversation can be written for it; set BASE_MODEL to a model that "
            "was trained to chat"
        )
    words: Sequence[str] = fields["tokenizer.ggml.tokens"]
    end = words[fields["tokenizer.ggml.eos_token_id"]]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(fields, name),
        eos_token=end,
        pad_token=_word(fields, "padding", end),
        bos_token=_word(fields, "bos", None),
        unk_token=_word(fields, "unknown", None),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    _require_end_of_turn(tokenizer, name)
    return tokenizer


def require_same_tokens(saved: Any, built: Any, name: str) -> None:
    """Check that the tokenizer as it is read from its folder makes the tokens that were meant.

    Raises:
        BaseModelRefused: transformers reads it as another one.
    """
    same = (saved.eos_token_id, saved.chat_template) == (built.eos_token_id, built.chat_template) and all(
        saved.encode(text, add_special_tokens=False) == built.encode(text, add_special_tokens=False)
        and saved.decode(saved.encode(text, add_special_tokens=False)) == text
        for text in PROBES
    )
    if not same:
        raise BaseModelRefused(
            f"transformers does not read the tokenizer of {name} as its fields say; set BASE_MODEL to a folder of this "
            "model with a tokenizer.json"
        )


def _byte_level_bpe(fields: Fields, name: str) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    kind, rule = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or rule not in _RULES:
        raise BaseModelRefused(
            f"{name} has a vocabulary of the kind {kind!r} and cuts texts by the rule {rule!r}; known are byte-level "
            f"BPE (gpt2) and the rules {', '.join(_RULES)}. Set BASE_MODEL to a folder of this model with a "
            "tokenizer.json"
        )
    words, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=merges,
            ignore_merges=rule in ("llama-bpe", "llama3"),
        )
    )
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(rule)
    tokenizer.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, kinds, strict=True) if kind == _CONTROL]
    added = [word for word, kind in zip(words, kinds, strict=True) if kind == _ADDED]
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in control])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in added])
    return tokenizer


#: The names of rules in `tokenizer.ggml.pre`, as llama.cpp has them, and the pattern of each; None: GPT-2's own.
_RULES: dict[str, str | None] = {
    "smollm": None,
    "default": None,
    "gpt-2": None,
    "qwen2": QWEN2_PATTERN,
    "llama-bpe": _LLAMA3_PATTERN,
    "llama3": _LLAMA3_PATTERN,
}


def _pre_tokenizer(rule: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    pattern = _RULES[rule]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if rule == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if pattern is None:
        return byte_level
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior="isolated"), byte_level])


def _word(fields: Fields, role: str, default: str | None) -> str | None:
    number = fields.get(f"tokenizer.ggml.{role}_token_id")
    return default if number is None else str(fields["tokenizer.ggml.tokens"][number])


def _require_end_of_turn(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Check that the chat template ends an answer with the token that the file calls its end."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    if str(tokenizer.eos_token) not in text.rpartition("b")[2]:
        raise BaseModelRefused(
            f"{name} calls {tokenizer.eos_token!r} the end of a turn, and its chat template ends an answer with "
            "another token; set BASE_MODEL to a folder of this model whose tokenizer_config.json names the right one"
        )
