"""Between texts and tokens: conversations by the base model's own chat template, and answers back into text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from babylon_assets.domain.chat_tokens import ChatTokens
from babylon_assets.domain.trajectories import Message

#: What a byte that is no whole character yet decodes to.
UNFINISHED = "\ufffd"


class ChatTokenizer:
    """The tokenizer and the chat template in a base model's folder. May be used by several threads."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self._fast: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        self._chat = ChatTokens(self._tokenizer)
        #: Most characters that one token stands for.
        self.longest = max(map(len, self._tokenizer.get_vocab()))
        self._plain = self._fast is not None and not self._tokenizer.clean_up_tokenization_spaces

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return int(self._tokenizer.eos_token_id)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation as the policy reads it, up to where the answer begins."""
        return self._chat.prompt([{"role": message.role, "content": message.content} for message in messages])

    def text(self, token_ids: Sequence[int]) -> str:
        """Token ids as text, special tokens written out."""
        if self._plain:
            return str(self._fast.decode(token_ids, skip_special_tokens=False))
        return str(self._tokenizer.decode(token_ids))

    def token(self, token_id: int) -> str:
        """One token's text, as far as it is one by itself."""
        return self.text([token_id])
