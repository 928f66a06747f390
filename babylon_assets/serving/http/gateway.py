"""The gateway: an OpenAI-compatible server over whoever answers, which records every answer before it leaves.

Starlette routes, no middleware. How answers come about is `scheduler`'s and `upstream`'s, what a name means
`directory`'s, who may ask `keys`'s; a process that serves all of it is made in `server`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from babylon_assets.domain.policies import Caller
from babylon_assets.ledger.inference_calls import InferenceCall
from babylon_assets.serving.answers import Answer, Piece, Question, Source, Target
from babylon_assets.serving.http import protocol
from babylon_assets.serving.http.connections import Connections
from babylon_assets.serving.http.keys import Access
from babylon_assets.serving.http.metrics import CONTENT_TYPE, Metrics
from babylon_assets.serving.http.protocol import ApiError, ChatRequest, Choice
from babylon_assets.serving.policy_registry import BASE, Directory
from babylon_assets.serving.recorder import Recorder

#: What a proxy in front is told of a client that went away; nobody else sees it.
CLIENT_GONE = 499

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Parts:
    """What a gateway is made of, once it is ready.

    Attributes:
        answer_tokens: the longest answer that a request may ask for.
    """

    source: Source
    directory: Directory
    recorder: Recorder | None
    access: Access
    answer_tokens: int
    metrics: Metrics
    model: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was accepted."""

    parts: Parts
    request: ChatRequest
    question: Question
    caller: Caller
    key: str
    id: str
    started: float
    at: datetime

    def call(self, index: int, answer: Answer) -> InferenceCall:
        """The record of one of the answers; the first has the completion's own id."""
        accepted, policy = self.question, self.question.policy
        sampling = {
            "model": self.request.model,
            "top_p": accepted.top_p,
            "max_tokens": accepted.max_tokens,
            "choice": index,
        }
        return InferenceCall(
            call_id=self.id if index == 0 else f"{self.id}-{index}",
            created_at=self.caller.at or self.at,
            model=self.parts.model,
            policy=policy.name,
            policy_step=policy.step,
            agent_id=self.caller.agent,
            trajectory_id=self.caller.trajectory,
            step=self.caller.step,
            messages=accepted.messages,
            response=answer.text,
            prompt_token_ids=answer.prompt_token_ids,
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            temperature=accepted.temperature,
            seed=accepted.seeds[index],
            latency_ms=1000 * (time.perf_counter() - self.started),
            finish_reason=answer.finish_reason,
            sampling=sampling | ({"stop": list(accepted.stop)} if accepted.stop else {}),
        )

    def record(self, answers: dict[int, Answer]) -> None:
        """Write the answers down and count them."""
        parts = self.parts
        if parts.recorder is not None:
            parts.recorder.record([self.call(index, answer) for index, answer in answers.items()])
        prompt = answers[0].prompt_tokens if 0 in answers else 0  # all answers are to the same one
        completion = sum(answer.completion_tokens for answer in answers.values())
        parts.access.spend(self.key, prompt + completion)
        parts.metrics.tokens.labels("prompt").inc(prompt)
        parts.metrics.tokens.labels("completion").inc(completion)
        parts.metrics.answers.labels(self.question.policy.name).inc(len(answers))
        parts.metrics.seconds.observe(time.perf_counter() - self.started)


class Gateway:
    """The application; it refuses politely until it is given its parts."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.parts: Parts | None = None
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._answer_errors(self._chat), methods=["POST"]),
                Route("/v1/models", self._answer_errors(self._models)),
                Route("/v1/models/{name:path}", self._answer_errors(self._model)),
                Route("/health", self._answer_errors(self._health)),
                Route("/metrics", self._answer_errors(self._metrics)),
            ],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    def _answer_errors(
        self, handle: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler, with whatever goes wrong in it told in OpenAI's form."""

        async def handled(request: Request) -> Response:
            try:
                reply = await handle(request)
            except ApiError as error:
                reply = _refused(error)
            except ClientDisconnect:
                reply = Response(status_code=CLIENT_GONE)
            except Exception:
                _log.exception("a request failed")
                reply = _refused(ApiError(500, "the gateway failed; its log says of what", code="internal_error"))
            if self.parts is not None:
                self.parts.metrics.requests.labels(str(reply.status_code)).inc()
            return reply

        return handled

    def _ready(self) -> Parts:
        if self.parts is None:
            raise ApiError(503, "the gateway is starting", code="not_ready", retry_after=1)
        return self.parts

    async def _chat(self, request: Request) -> Response:
        accepted = await self._accepted(request)
        parts = accepted.parts
        with ExitStack() as held:
            held.enter_context(parts.access.place(accepted.key, len(accepted.question.seeds)))
            if accepted.request.stream:
                pieces = parts.source.pieces(accepted.question)
                first = await anext(pieces)  # what is refused, is refused with a status
                return _Events(accepted, first, pieces, held.pop_all())
            return await self._whole(accepted, request.receive)

    async def _whole(self, accepted: _Asked, receive: Receive) -> Response:
        watcher = asyncio.create_task(_cancel_when_gone(receive, asyncio.current_task()))
        try:
            answers = await accepted.parts.source.answers(accepted.question)
        except asyncio.CancelledError:
            if not watcher.done():
                raise
            accepted.parts.metrics.cancelled.inc()
            return Response(status_code=CLIENT_GONE)
        finally:
            watcher.cancel()
        accepted.record(dict(enumerate(answers)))
        with_ids = bool(accepted.request.return_token_ids)
        body = protocol.response(
            accepted.id,
            int(accepted.at.timestamp()),
            accepted.question.policy.name,
            answers[0].prompt_tokens,
            [_choice(answer, with_ids=with_ids) for answer in answers],
            answers[0].prompt_token_ids if with_ids else None,
        )
        return Response(body, media_type="application/json")

    async def _accepted(self, request: Request) -> _Asked:
        """The request, if it may be made and can be understood."""
        started, at, parts = time.perf_counter(), datetime.now(UTC), self._ready()
        key = parts.access.who(request.headers.get("authorization"))
        given = protocol.read_request(await request.body())
        caller = protocol.read_caller(given, request.headers)
        tokens = given.requested_tokens
        if tokens is not None and tokens > parts.answer_tokens:
            param = "max_tokens" if given.max_completion_tokens is None else "max_completion_tokens"
            raise ApiError(400, f"an answer may have {parts.answer_tokens} tokens", param=param, code="invalid_value")
        question = Question(
            policy=await self._policy(parts, given.model, caller.agent),
            messages=[message.plain() for message in given.messages],
            seeds=_seeds(given.seed, given.n or 1),
            max_tokens=tokens or parts.answer_tokens,
            temperature=1.0 if given.temperature is None else given.temperature,
            top_p=1.0 if given.top_p is None else given.top_p,
            stop=given.stops,
            top_logprobs=(given.top_logprobs or 0) if given.logprobs else None,
            with_end=bool(given.return_token_ids),
        )
        return _Asked(parts, given, question, caller, key, f"chatcmpl-{secrets.token_hex(12)}", started, at)

    async def _policy(self, parts: Parts, name: str, agent: str | None) -> Target:
        known = parts.directory.known(name, agent)
        if known is None:
            known = await asyncio.get_running_loop().run_in_executor(None, parts.directory.find, name)
        if not parts.source.serves(known):
            raise ApiError(404, f"the weights of {known.name} are not kept", param="model", code="model_not_found")
        return known

    async def _models(self, request: Request) -> Response:
        parts = self._ready()
        parts.access.who(request.headers.get("authorization"))
        names = parts.directory.names()
        return _json({"object": "list", "data": [_model_entry(parts, name, policy) for name, policy in names.items()]})

    async def _model(self, request: Request) -> Response:
        parts = self._ready()
        parts.access.who(request.headers.get("authorization"))
        name = request.path_params["name"]
        return _json(_model_entry(parts, name, await self._policy(parts, name, None)))

    async def _health(self, _request: Request) -> Response:
        """200 where policies can be asked, even without PostgreSQL; what is missing for more is named."""
        if self.parts is None:
            return _json({"status": "starting", "missing": ["the engine is being made ready"]}, 503)
        directory, recorder = self.parts.directory, self.parts.recorder
        served, up = directory.served, directory.database_up and (recorder is None or recorder.database_up)
        status = "starting" if served is None else "ok" if up else "degraded"
        facts: dict[str, Any] = {"status": status, "database": up, "missing": list(directory.missing)}
        if served is not None:
            facts["policy"] = served.stable.name
            if served.challenger is not None:
                facts["challenger"] = served.challenger.name
        if directory.noted_at is not None:
            facts["policy_noted_at"] = directory.noted_at.isoformat(timespec="seconds")
        if recorder is not None:
            facts |= {"records_waiting_bytes": recorder.waiting(), "records_lost": recorder.lost}
        return _json(facts, 503 if served is None else 200)

    async def _metrics(self, request: Request) -> Response:
        parts = self._ready()
        parts.access.who(request.headers.get("authorization"))
        return Response(parts.metrics.text(), headers={"content-type": CONTENT_TYPE})


class _Events(Response):
    """A streamed answer as server-sent events; ends what it holds when the client goes away."""

    def __init__(self, accepted: _Asked, first: Piece, pieces: AsyncIterator[Piece], held: ExitStack) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._asked, self._first, self._pieces, self._held = accepted, first, pieces, held
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(_cancel_when_gone(receive, asyncio.current_task()))
        with self._held:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async with aclosing(self._pieces):  # type: ignore[type-var]
                    async for event in self._events():
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": protocol.LAST_EVENT, "more_body": False})
            except asyncio.CancelledError:
                if not watcher.done():
                    raise
                self._asked.parts.metrics.cancelled.inc()
            finally:
                watcher.cancel()

    async def _events(self) -> AsyncIterator[bytes]:
        accepted = self._asked
        call_id, created, model = accepted.id, int(accepted.at.timestamp()), accepted.question.policy.name
        for index in range(len(accepted.question.seeds)):
            yield protocol.chunk(call_id, created, model, index, {"role": "assistant", "content": ""})
        ended: list[Answer] = []
        try:
            async for piece in _with_first(self._first, self._pieces):
                whole = piece.whole
                if whole is not None:
                    accepted.record({piece.index: whole})
                    ended.append(whole)
                if piece.text or piece.tokens:
                    delta = {"content": piece.text}
                    yield protocol.chunk(call_id, created, model, piece.index, delta, None, piece.tokens)
                if whole is not None:
                    ids = (whole.prompt_token_ids, whole.token_ids) if accepted.request.return_token_ids else None
                    yield protocol.chunk(call_id, created, model, piece.index, {}, whole.finish_reason, ids=ids)
        except ApiError as error:
            yield b"data: " + error.body() + b"\n\n"
        except Exception:
            _log.exception("a stream failed")
            yield b"data: " + ApiError(500, "the gateway failed; its log says of what").body() + b"\n\n"
        options = accepted.request.stream_options
        if ended and options is not None and options.include_usage:
            used = sum(answer.completion_tokens for answer in ended)
            yield protocol.usage_chunk(call_id, created, model, ended[0].prompt_tokens, used)


async def _with_first(first: Piece, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in pieces:
        yield piece


async def _cancel_when_gone(receive: Receive, task: asyncio.Task[Any] | None) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if task is not None:
        task.cancel()


def _seeds(seed: int | None, count: int) -> list[int]:
    """A seed per answer: the given one, then others that follow from it. All fit PostgreSQL's bigint, none is negative,
    as a random stream's must not be."""
    first = secrets.randbits(63) if seed is None else abs(seed)
    if count == 1:
        return [first]
    following = np.random.SeedSequence(first).generate_state(count - 1, np.uint64) >> np.uint64(1)
    return [first, *map(int, following)]


def _choice(answer: Answer, *, with_ids: bool) -> Choice:
    ids = answer.token_ids if with_ids else None
    return Choice(answer.text, answer.finish_reason, answer.tokens, answer.completion_tokens, ids)


def _model_entry(parts: Parts, name: str, policy: Target) -> dict[str, Any]:
    owner = BASE if policy.step == 0 else parts.model
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, "policy": policy.name}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _refused(error: ApiError) -> Response:
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Response(error.body(), error.status, headers, "application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _refused(ApiError(status, f"{request.method} {request.url.path} is not served here", code="not_found"))
