"""Between texts and tokens: conversations by the base model's own chat template, and answers back into text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babylon_assets.domain.chat_tokens import ChatTokens
from babylon_assets.domain.chat_turns import chat_turns
from babylon_assets.domain.trajectories import Message

#: What a byte that is no whole character yet decodes to.
UNFINISHED = "\ufffd"
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

        Raises:
            InexpressibleError: the chat template has no form for its tools.
        """
        return self._chat.prompt(chat_turns(messages), tools)

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
