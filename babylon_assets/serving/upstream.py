"""A server behind the gateway: W&B's hosted inference, ART's vLLM, or anything else that speaks OpenAI's API.

It is asked once per answer, so that each has a seed of its own, and for log-probabilities and token ids. What it does
not give is None and is recorded as missing. A stream's pieces are passed on as they come; the whole answer is put
together from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from babylon_assets.domain.chat_turns import wire_messages
from babylon_assets.domain.errors import PermanentError
from babylon_assets.serving.answers import Answer, Piece, Question, Target
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.offered_tools import OfferedTools
from babylon_assets.serving.upstream_client import UpstreamClient
from babylon_assets.serving.upstream_replies import GatheredReply, read_events

Kind = Literal["wandb", "vllm", "openai"]

#: Pieces of a stream that may wait for a slow client before the server behind is held up.
PIECES_AHEAD = 64


class Upstream:
    """A `Source` that asks a server.

    Args:
        url: with `/v1`.
        kind: what the server is, which decides how policies are named there and what may be asked for.
        base_model: the hosted service's name of the base model.
        seconds: how long one answer may take.
        most: answers that may be under way at the same time.
    """

    #: The server takes thoughts apart itself, or gives them whole.
    opens_thought = False
    thread = None

    def __init__(self, url: str, key: str, kind: Kind, base_model: str, *, seconds: float, most: int) -> None:
        self._client = UpstreamClient(url, key, seconds=seconds)
        self._kind, self._base_model, self._most = kind, base_model, most
        self._active = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def prepare(self, policy: Target) -> None:
        self._name(policy)

    def serves(self, policy: Target) -> bool:
        return self._kind != "wandb" or policy.step == 0 or "://" in policy.path

    def load(self) -> tuple[int, int]:
        return self._active, 0

    def close(self) -> None:
        """Close the connections; called beside the event loop that asked, which still runs."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.end(), self._loop).result()

    async def end(self) -> None:
        """Close the connections, on the event loop that asked."""
        await self._client.close()

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
        self._loop = asyncio.get_running_loop()
        if self._active + count > self._most:
            raise ApiError(429, "too many answers are under way", code="queue_full", retry_after=1)
        self._active += count
        try:
            yield
        finally:
            self._active -= count

    async def _answer(self, question: Question, seed: int) -> Answer:
        gathered = GatheredReply(question, raw=self._kind == "vllm")
        async with self._client.ask(self._request(question, seed)) as response:
            gathered.take_reply(await self._client.read_reply(response))
        return gathered.answer()

    async def _stream(self, question: Question, index: int, seed: int, heard: asyncio.Queue[Any]) -> None:
        """Put the pieces of one answer where they are waited for, at last the whole, or what it failed of."""
        gathered, patience = GatheredReply(question, raw=self._kind == "vllm"), self._client.patience()
        request = self._request(question, seed) | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._client.ask(request) as response:
                async for data in read_events(self._client.read_lines(response, patience)):
                    before = gathered.size
                    for text, thought, tokens in gathered.take_chunk(data):
                        await heard.put(Piece(index, text, tokens, reasoning=thought))
                    if gathered.size > before:
                        patience.renew()
            whole = gathered.answer()
            await heard.put(Piece(index, "", None, whole, tool_calls=whole.tool_calls))
        except Exception as error:  # told where the pieces are waited for
            await heard.put(error)

    def _request(self, question: Question, seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._name(question.policy),
            "messages": wire_messages(question.messages),
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
        if question.tools is not None:
            request |= {"tools": list(question.tools.listed), "tool_choice": _tool_choice(question.tools)}
        if question.response_format is not None:
            request["response_format"] = question.response_format
        if self._kind == "vllm":
            request["return_token_ids"] = True
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


def _tool_choice(tools: OfferedTools) -> Any:
    if tools.choice in ("auto", "required"):
        return tools.choice
    return {"type": "function", "function": {"name": tools.choice}}
