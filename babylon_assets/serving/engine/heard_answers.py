"""What was sampled as the event loop hears it: whole answers, and what is new of one that is under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from babylon_assets.serving.answers import Answer, Piece, Question
from babylon_assets.serving.engine.batching import Generation
from babylon_assets.serving.engine.engine import completion
from babylon_assets.serving.engine.texts import UNFINISHED, ChatTokenizer
from babylon_assets.serving.http.protocol import Token


def whole_answer(
    generation: Generation, question: Question, tokenizer: ChatTokenizer, *, with_tokens: bool = True
) -> Answer:
    """An answer that has ended.

    Args:
        with_tokens: and what was asked for of its tokens.
    """
    whole = completion(generation, tokenizer)
    last = len(generation.token_ids) if question.with_end else generation.text_tokens
    with_tokens = with_tokens and question.top_logprobs is not None
    tokens = _tokens(generation, 0, last, tokenizer) if with_tokens else None
    return Answer(
        text=whole.text,
        finish_reason=whole.finish_reason,
        prompt_token_ids=whole.prompt_token_ids,
        token_ids=whole.token_ids,
        logprobs=whole.logprobs,
        tokens=tokens,
        prompt_tokens=len(whole.prompt_token_ids),
        completion_tokens=len(whole.token_ids),
    )


def _tokens(generation: Generation, start: int, end: int, tokenizer: ChatTokenizer) -> list[Token]:
    tokens = []
    for at in range(start, end):
        likeliest = generation.top[at] if generation.top_logprobs else ()
        top = [_token(tokenizer, token_id, value, []) for token_id, value in likeliest]
        tokens.append(_token(tokenizer, generation.token_ids[at], generation.logprobs[at], top))
    return tokens


def _token(tokenizer: ChatTokenizer, token_id: int, logprob: float, top: list[Token]) -> Token:
    text, raw = tokenizer.token(token_id)
    return Token(text, logprob, raw, top)


@dataclass(slots=True)
class HeardAnswer:
    """What of an answer has been told already; text that may still change, or become a stop, is held back."""

    generation: Generation
    index: int
    question: Question
    tokenizer: ChatTokenizer
    _sent: int = 0
    _counted: int = 0
    _longest_stop: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._longest_stop = max(map(len, self.question.stop), default=0)

    @property
    def microseconds(self) -> float:
        """About how long it takes to read what is new: where a long stop is looked for, all comes at once."""
        return (len(self.generation.token_ids) - self._counted) * (1 + 2 * (self.question.top_logprobs or 0))

    def read(self) -> Piece | None:
        """What is new since the last time; None if that is nothing."""
        ended, count = self.generation.finish_reason is not None, self.generation.text_tokens
        text = self.tokenizer.text(self.generation.token_ids[:count])
        if ended:
            text = text[: self.generation.cut]
        else:
            text = text.rstrip(UNFINISHED)
            text = text[: max(0, len(text) - self._longest_stop + 1)] if self._longest_stop else text
        new = text[self._sent :]
        if not new and not ended:
            return None
        wanted: Any = self.question.top_logprobs
        last = len(self.generation.token_ids) if ended and self.question.with_end else count
        tokens = None if wanted is None else _tokens(self.generation, self._counted, last, self.tokenizer)
        self._sent, self._counted = max(self._sent, len(text)), count
        if not ended:
            return Piece(self.index, new, tokens)
        whole = whole_answer(self.generation, self.question, self.tokenizer, with_tokens=False)
        return Piece(self.index, new, tokens, whole)
