"""A server behind the gateway: W&B's hosted inference, ART's vLLM, or anything else that speaks OpenAI's API.

It is asked with OpenAI's own client, once per answer, so that each has a seed of its own, and for log-probabilities and
token ids. What it does not give is None and is recorded as missing. A stream's pieces are passed on as they come; the
whole answer is put together from them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from babylon_assets.config.network import is_loopback
from babylon_assets.domain.errors import PermanentError
from babylon_assets.serving.answers import Answer, Piece, Question, Target
from babylon_assets.serving.http.protocol import ApiError, Token, token

Kind = Literal["wandb", "vllm", "openai"]

#: Pieces of a stream that may wait for a slow client before the server behind is held up.
PIECES_AHEAD = 64
#: How vLLM writes a token whose id was asked for in place of its text.
_TOKEN_ID = re.compile(r"token_id:(\d+)")


class Upstream:
    """A `Source` that asks a server.

    Args:
        url: with `/v1`.
        kind: what the server is, which decides how policies are named there and what may be asked for.
        base_model: the hosted service's name of the base model.
        seconds: how long one answer may take.
        most: answers that may be under way at the same time.
    """

    def __init__(self, url: str, key: str, kind: Kind, base_model: str, *, seconds: float, most: int) -> None:
        import httpx
        from openai import AsyncOpenAI

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=most)
        http = httpx.AsyncClient(limits=limits, timeout=seconds, trust_env=not is_loopback(url))
        self._client = AsyncOpenAI(base_url=url, api_key=key, timeout=seconds, max_retries=1, http_client=http)
        self._kind, self._base_model, self._most = kind, base_model, most
        self._active = 0

    def prepare(self, policy: Target) -> None:
        self._name(policy)

    def serves(self, policy: Target) -> bool:
        return self._kind != "wandb" or policy.step == 0 or "://" in policy.path

    def load(self) -> tuple[int, int]:
        return self._active, 0

    def close(self) -> None:
        """Connections end with the event loop that they belong to."""

    async def answers(self, question: Question) -> list[Answer]:
        with self._places(len(question.seeds)):
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._answer(question, seed)) for seed in question.seeds]
            except ExceptionGroup as errors:
                refusals, others = errors.split(ApiError)
                if refusals is None or others is not None:
                    raise
                raise refusals.exceptions[0] from None
            return [task.result() for task in tasks]

    async def pieces(self, question: Question) -> AsyncGenerator[Piece]:
        with self._places(len(question.seeds)):
            heard: asyncio.Queue[Piece | Exception] = asyncio.Queue(PIECES_AHEAD)
            streams = [
                asyncio.create_task(self._stream(question, index, seed, heard))
                for index, seed in enumerate(question.seeds)
            ]
            try:
                ended = 0
                while ended < len(streams):
                    piece = await heard.get()
                    if isinstance(piece, Exception):
                        raise piece
                    ended += piece.whole is not None
                    yield piece
            finally:
                for stream in streams:
                    stream.cancel()
                await asyncio.gather(*streams, return_exceptions=True)

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        if self._active + count > self._most:
            raise ApiError(429, "too many answers are under way", code="queue_full", retry_after=1)
        self._active += count
        try:
            yield
        finally:
            self._active -= count

    async def _answer(self, question: Question, seed: int) -> Answer:
        with _translate_errors():
            reply = await self._client.chat.completions.create(**self._request(question, seed))
        choice, gathered = reply.choices[0], _Gathered(question, raw=self._kind == "vllm")
        gathered.take(choice.message.content, choice)
        gathered.take_frame(reply)
        return gathered.answer()

    async def _stream(self, question: Question, index: int, seed: int, heard: asyncio.Queue[Any]) -> None:
        """Put the pieces of one answer where they are waited for, at last the whole, or what it failed of."""
        gathered = _Gathered(question, raw=self._kind == "vllm")
        request = self._request(question, seed) | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            with _translate_errors():
                async with await self._client.chat.completions.create(**request) as chunks:
                    async for chunk in chunks:
                        gathered.take_frame(chunk)
                        for choice in chunk.choices:
                            text, tokens = gathered.take(choice.delta.content, choice)
                            if text or tokens:
                                await heard.put(Piece(index, text, tokens))
            await heard.put(Piece(index, "", None, gathered.answer()))
        except Exception as error:  # told where the pieces are waited for
            await heard.put(error)

    def _request(self, question: Question, seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._name(question.policy),
            "messages": [{"role": message.role, "content": message.content} for message in question.messages],
            "seed": seed,
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "logprobs": True,
        }
        if question.stop:
            request["stop"] = list(question.stop)
        if question.top_logprobs:
            request["top_logprobs"] = question.top_logprobs
        if self._kind == "vllm":
            request["extra_body"] = {"return_token_ids": True}
        return request

    def _name(self, policy: Target) -> str:
        """What a policy is called there: ART's vLLM has it under our name, the hosted service under its artifact's."""
        if self._kind != "wandb":
            return policy.name
        if policy.step == 0:
            return self._base_model
        if "://" not in policy.path:
            raise PermanentError(f"{policy.name} was not trained by the hosted service; set GATEWAY_ENGINE=embedded")
        return policy.path


def _passed_on(error: Any) -> ApiError:
    """The server's refusal as ours. Our key being refused is not the client's fault."""
    status: int = error.status_code
    if status in (401, 403) or status >= 500:
        return ApiError(502, f"the server behind the gateway answered {status}", code="upstream")
    after = error.response.headers.get("retry-after", "")
    retry_after = int(after) if after.isdecimal() else 1 if status == 429 else None
    return ApiError(status, error.message, param=error.param, code=error.code, retry_after=retry_after)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """What asking the server may fail of, as what the client is told."""
    import httpx
    from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

    try:
        yield
    except (APITimeoutError, httpx.TimeoutException) as error:
        raise ApiError(504, "the server behind the gateway did not answer in time", code="upstream") from error
    except APIStatusError as error:
        raise _passed_on(error) from error
    except (APIConnectionError, httpx.TransportError) as error:
        raise ApiError(502, "the server behind the gateway does not answer", code="upstream") from error
    except APIError as error:  # an error that came in place of a stream's next piece
        raise ApiError(502, "the server behind the gateway broke off its answer", code="upstream") from error


@dataclass(slots=True)
class _Gathered:
    """What of an answer has come so far: one reply, or the chunks of a stream.

    Attributes:
        raw: the server gives log-probabilities at temperature 1 whatever was asked, as vLLM does by default; of others
            they are taken only where nothing was changed about the distribution.
    """

    question: Question
    raw: bool
    texts: list[str] = field(default_factory=list)
    content: list[Any] = field(default_factory=list)
    ids: list[int] | None = None
    prompt_ids: list[int] | None = None
    finish_reason: str | None = None
    usage: Any = None

    def take_frame(self, reply: Any) -> None:
        """What stands around the choices: the prompt's tokens, how many there were of both."""
        self.prompt_ids = (reply.model_extra or {}).get("prompt_token_ids") or self.prompt_ids
        self.usage = reply.usage or self.usage

    def take(self, text: str | None, choice: Any) -> tuple[str, list[Token] | None]:
        """A choice, or a piece of it; gives what of it is for the client."""
        content = (choice.logprobs.content if choice.logprobs is not None else None) or []
        ids = (choice.model_extra or {}).get("token_ids")
        self.texts.append(text or "")
        self.content += content
        self.ids = self.ids if ids is None else [*(self.ids or ()), *ids]
        self.finish_reason = choice.finish_reason or self.finish_reason
        wanted = self.question.top_logprobs is not None and content
        return text or "", list(map(_token, content)) if wanted else None

    def answer(self) -> Answer:
        """All of it.

        Raises:
            ApiError: the server ended before the answer did.
        """
        if self.finish_reason is None:
            raise ApiError(502, "the server behind the gateway broke off its answer", code="upstream")
        ids, content, usage = self._token_ids(), self.content, self.usage
        return Answer(
            text="".join(self.texts),
            finish_reason=self.finish_reason,
            prompt_token_ids=self.prompt_ids,
            token_ids=ids,
            logprobs=self._logprobs(ids),
            tokens=None if self.question.top_logprobs is None or not content else list(map(_token, content)),
            prompt_tokens=usage.prompt_tokens if usage is not None else 0,
            completion_tokens=usage.completion_tokens if usage is not None else len(ids or ()),
        )

    def _token_ids(self) -> list[int] | None:
        """As they are, or as they are written in place of the tokens' texts."""
        if self.ids is None and self.content and all(_TOKEN_ID.fullmatch(item.token) for item in self.content):
            return [int(item.token.partition(":")[2]) for item in self.content]
        return self.ids

    def _logprobs(self, ids: list[int] | None) -> list[float] | None:
        changed = self.question.temperature != 1 or self.question.top_p != 1
        if not self.content or (changed and not self.raw):
            return None
        if ids is not None and len(ids) != len(self.content):
            return None  # of which tokens they are is not known
        return [item.logprob for item in self.content]


def _token(entry: Any) -> Token:
    return token(entry.token, entry.logprob, [(candidate.token, candidate.logprob) for candidate in entry.top_logprobs])
