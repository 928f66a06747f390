"""A server behind the gateway: W&B's hosted inference, ART's vLLM, or anything else that speaks OpenAI's API.

It is asked with OpenAI's own client, once per answer, so that each has a seed of its own, and for log-probabilities and
token ids. What it does not give is None and is recorded as missing. A stream's answer comes in one piece.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Literal

from babylon_assets.core.errors import PermanentError
from babylon_assets.serving.answers import Answer, Piece, Question, Target
from babylon_assets.serving.protocol import ApiError, Token, token

Kind = Literal["wandb", "vllm", "openai"]

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
        http = httpx.AsyncClient(limits=limits, timeout=seconds)
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
        if self._active + len(question.seeds) > self._most:
            raise ApiError(429, "too many answers are under way", code="queue_full", retry_after=1)
        self._active += len(question.seeds)
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._answer(question, seed)) for seed in question.seeds]
        except* ApiError as errors:
            raise errors.exceptions[0] from None
        finally:
            self._active -= len(question.seeds)
        return [each.result() for each in asked]

    async def pieces(self, question: Question) -> AsyncIterator[Piece]:
        for index, answer in enumerate(await self.answers(question)):
            yield Piece(index, answer.text, answer.tokens, answer)

    async def _answer(self, question: Question, seed: int) -> Answer:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            reply = await self._client.chat.completions.create(**self._request(question, seed))
        except APITimeoutError as error:
            raise ApiError(504, "the server behind the gateway did not answer in time", code="upstream") from error
        except APIConnectionError as error:
            raise ApiError(502, "the server behind the gateway does not answer", code="upstream") from error
        except APIStatusError as error:
            raise _passed_on(error) from error
        return _read(reply, question, raw=self._kind == "vllm")

    def _request(self, question: Question, seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._name(question.policy),
            "messages": [{"role": each.role, "content": each.content} for each in question.messages],
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


def _read(reply: Any, question: Question, *, raw: bool) -> Answer:
    """A reply as an answer.

    Args:
        raw: the server gives log-probabilities at temperature 1 whatever was asked, as vLLM does by default; of others
            they are taken only where nothing was changed about the distribution.
    """
    choice = reply.choices[0]
    content = choice.logprobs.content if choice.logprobs is not None else None
    ids = (choice.model_extra or {}).get("token_ids")
    if ids is None and content and all(_TOKEN_ID.fullmatch(each.token) for each in content):
        ids = [int(each.token.partition(":")[2]) for each in content]
    logprobs = [each.logprob for each in content] if content else None
    if not (raw or (question.temperature == 1 and question.top_p == 1)):
        logprobs = None
    if ids is not None and logprobs is not None and len(ids) != len(logprobs):
        logprobs = None  # of which tokens they are is not known
    usage = reply.usage
    return Answer(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason,
        prompt_token_ids=(reply.model_extra or {}).get("prompt_token_ids"),
        token_ids=ids,
        logprobs=logprobs,
        tokens=None if question.top_logprobs is None or not content else list(map(_told, content)),
        prompt_tokens=usage.prompt_tokens if usage is not None else 0,
        completion_tokens=usage.completion_tokens if usage is not None else len(ids or ()),
    )


def _told(given: Any) -> Token:
    return token(given.token, given.logprob, [(each.token, each.logprob) for each in given.top_logprobs])
