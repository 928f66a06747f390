"""A policy behind a gateway, as the simulated players ask it: with the official client, all of a moment at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from babylon_assets.config.network import is_loopback
from babylon_assets.domain.errors import PermanentError, TransientError
from babylon_assets.domain.policies import Caller, Completion
from babylon_assets.domain.trajectories import Message

if TYPE_CHECKING:
    from openai import APIError

#: An answer waits for those before it; far beyond what a queue takes.
TIMEOUT_SECONDS = 120


class GatewayPolicy:
    """A `RecordingPolicy` that asks a gateway over HTTP; a context manager that closes its connections.

    Args:
        url: of the gateway, with `/v1`.
        name: of the policy; may be changed between questions.
        key: where the gateway wants one.
    """

    def __init__(self, url: str, name: str, key: str = "none-needed") -> None:
        import httpx
        from openai import AsyncOpenAI

        self.name = name
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        http = httpx.AsyncClient(limits=limits, timeout=TIMEOUT_SECONDS, trust_env=not is_loopback(url))
        self._client = AsyncOpenAI(base_url=url, api_key=key, timeout=TIMEOUT_SECONDS, http_client=http)
        self._runner = asyncio.Runner()

    def __enter__(self) -> GatewayPolicy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self._client.close())

    def ask(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        callers: Sequence[Caller],
        *,
        max_tokens: int,
    ) -> list[Completion]:
        """One answer for each conversation, all asked at once.

        Raises:
            TransientError: the gateway does not answer, or another policy answered than the one that was asked.
            PermanentError: the gateway refuses the question.
        """
        from openai import APIConnectionError, APIStatusError, InternalServerError, RateLimitError

        try:
            return self._runner.run(self._all(conversations, seeds, callers, max_tokens))
        except (APIConnectionError, RateLimitError, InternalServerError) as error:
            raise TransientError(f"the gateway at {self._client.base_url} does not answer: {_reason(error)}") from error
        except APIStatusError as error:
            raise PermanentError(f"the gateway refused a question: {_reason(error)}; read its log") from error

    async def _all(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        callers: Sequence[Caller],
        max_tokens: int,
    ) -> list[Completion]:
        calls = zip(conversations, seeds, callers, strict=True)
        return list(await asyncio.gather(*(self._complete_one(*call, max_tokens) for call in calls)))

    async def _complete_one(
        self, conversation: Sequence[Message], seed: int, caller: Caller, max_tokens: int
    ) -> Completion:
        messages: Any = [{"role": message.role, "content": message.content} for message in conversation]
        reply = await self._client.chat.completions.create(
            model=self.name,
            messages=messages,
            seed=seed,
            max_tokens=max_tokens,
            user=caller.agent or "",
            metadata=_caller_headers(caller),
            extra_body={"return_token_ids": True},
        )
        if reply.model != self.name:
            raise TransientError(f"{self.name} was asked and {reply.model} answered")
        choice = reply.choices[0]
        ids: Any = (reply.model_extra or {}).get("prompt_token_ids"), (choice.model_extra or {}).get("token_ids")
        return Completion(
            text=choice.message.content or "",
            prompt_token_ids=ids[0] or [],
            token_ids=ids[1] or [],
            logprobs=[],
            finish_reason=choice.finish_reason,
            call_id=reply.id,
        )


def _reason(error: APIError) -> str:
    """What the gateway said, without the form that it said it in."""
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and body.get("message") else error.message


def _caller_headers(caller: Caller) -> dict[str, str]:
    at = None if caller.at is None else caller.at.isoformat()
    headers = {"trajectory": caller.trajectory, "step": caller.step, "at": at}
    return {name: str(value) for name, value in headers.items() if value is not None}
