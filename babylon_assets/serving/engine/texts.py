"""Between texts and tokens: conversations by the base model's own chat template, and answers back into text."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from babylon_assets.domain.chat_tokens import ChatTokens, Feature, InexpressibleError
from babylon_assets.domain.chat_turns import chat_turns
from babylon_assets.domain.tool_words import spell_tools
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.engine.constraints import CallForm, Constrainer

#: What a byte that is no whole character yet decodes to.
UNFINISHED = "\ufffd"
_log = logging.getLogger(__name__)

#: How vocabularies with byte fallback spell a byte; others write a character for each.
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class ChatTokenizer:
    """The tokenizer and the chat template in a base model's folder. May be used by several threads."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self._fast: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        self._chat = ChatTokens(self._tokenizer)
        self._tokens: dict[int, tuple[str, Sequence[int]]] = {}
        self._byte_of = {character: value for value, character in bytes_to_unicode().items()}
        #: Most characters that one token stands for.
        self.longest = max(map(len, self._tokenizer.get_vocab()))
        self._plain = self._fast is not None and not self._tokenizer.clean_up_tokenization_spaces

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return int(self._tokenizer.eos_token_id)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """A conversation as the policy reads it, up to where the answer begins.

        What the chat template has no form for of tools, calls of them and their results, is spelled out in words.

        Args:
            tools: what is offered, in OpenAI's form.
        """
        features = list(_features(messages, tools))
        if all(map(self._chat.expresses, features)):
            try:
                return self._chat.prompt(chat_turns(messages), tools)
            except InexpressibleError:
                _log.debug("the chat template has no form for a conversation with tools; it is spelled in words")
        return self._chat.prompt(chat_turns(spell_tools(messages, tools)))

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the chat template begins the thought before an answer."""
        return self.text(self.prompt([Message("user", "?")])).rstrip().endswith("<think>")

    @cached_property
    def constrainer(self) -> Constrainer:
        """What makes answers follow a form."""
        return Constrainer(self._tokenizer, self._call_form)

    def _call_form(self) -> CallForm:
        """How the chat template writes calls; one that has no form for them gets Hermes' in words."""
        template = str(self._tokenizer.chat_template or "")
        if not self._chat.expresses("tools"):
            return "hermes"
        if "<function=" in template and "<parameter=" in template:
            return "xml"
        return "hermes" if "<tool_call>" in template else "llama"

    def text(self, token_ids: Sequence[int]) -> str:
        """Token ids as text, special tokens written out."""
        if self._plain:
            return str(self._fast.decode(token_ids, skip_special_tokens=False))
        return str(self._tokenizer.decode(token_ids))

    def token(self, token_id: int) -> tuple[str, Sequence[int]]:
        """One token's text, as far as it is one by itself, and its bytes."""
        known = self._tokens.get(token_id)
        if known is None:
            text = self.text([token_id])
            known = self._tokens[token_id] = text, list(self._bytes(token_id) if UNFINISHED in text else text.encode())
        return known

    def _bytes(self, token_id: int) -> bytes:
        """The bytes of a token that may be a part of a character: as its name in the vocabulary spells them."""
        name = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if spelled := _BYTE.fullmatch(name):
            return bytes([int(spelled[1], 16)])
        values = [self._byte_of.get(character) for character in name]
        return bytes(value for value in values if value is not None) if None not in values else name.encode()


def _features(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> Iterator[Feature]:
    """What the template must have a form for, beyond texts."""
    if tools:
        yield "tools"
    if any(message.tool_calls for message in messages):
        yield "tool_calls"
    if any(message.role == "tool" for message in messages):
        yield "tool_results"
