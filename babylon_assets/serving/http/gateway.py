"""The gateway: an OpenAI-compatible server over whoever answers, which records every answer before it leaves.

Starlette routes. How answers come about is `scheduler`'s and `upstream`'s, what a name means
`directory`'s, who may ask `keys`'s; a process that serves all of it is made in `server`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from babylon_assets.domain.policies import Caller
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.answer_reading import read_answer, read_pieces
from babylon_assets.serving.answers import Question, Target
from babylon_assets.serving.http import protocol
from babylon_assets.serving.http.accepted_request import AcceptedRequest, Parts, draw_seeds
from babylon_assets.serving.http.connections import Connections
from babylon_assets.serving.http.feedback_requests import read_feedback, take_feedback
from babylon_assets.serving.http.forms import CHAT, FORMS
from babylon_assets.serving.http.forms.form import WireForm
from babylon_assets.serving.http.keys import authorization
from babylon_assets.serving.http.metrics import CONTENT_TYPE
from babylon_assets.serving.http.protocol import ApiError, ChatRequest
from babylon_assets.serving.http.streaming import Events, Watch
from babylon_assets.serving.http.web_pages import WebPages, require_json
from babylon_assets.serving.long_work import LONG_MICROSECONDS
from babylon_assets.serving.offered_tools import OfferedTools
from babylon_assets.serving.policy_registry import BASE

#: What a proxy in front is told of a client that went away; nobody else sees it.
CLIENT_GONE = 499
#: Ids that are drawn at a time: whenever the system is asked, the thread that samples may take Python's lock.
IDS_TOGETHER = 256
#: What clients look at before they ask.
PROBED = ("/", "/v1", *FORMS)

_log = logging.getLogger(__name__)


class _Asked(NamedTuple):
    """A request whose body was read, before it has a place.

    Attributes:
        json_format: the form that the answer has to have, in OpenAI's words.
        microseconds: about how long reading its body took.
    """

    parts: Parts
    form: WireForm
    given: ChatRequest
    messages: list[Message]
    tools: OfferedTools | None
    json_format: dict[str, Any] | None
    caller: Caller
    key: str
    started: float
    at: datetime
    microseconds: float


class Gateway:
    """The application; it refuses politely until it is given its parts."""

    def __init__(self, connections: Connections, pages: WebPages) -> None:
        self.connections, self._pages = connections, pages
        self.parts: Parts | None = None
        self._ids = _draw_ids()
        self.app = Starlette(
            routes=[
                *(Route(path, self._answer_errors(self._probe), methods=["HEAD", "OPTIONS"]) for path in PROBED),
                *(self._route(path, form) for path, form in FORMS.items()),
                Route("/v1/feedback", self._answer_errors(self._feedback), methods=["POST"]),
                Route("/v1/models", self._answer_errors(self._models)),
                Route("/v1/models/{name:path}", self._answer_errors(self._model)),
                Route("/health", self._answer_errors(self._health)),
                Route("/metrics", self._answer_errors(self._metrics)),
            ],
            middleware=[_cors(pages.origins)] if pages.origins else [],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    def _route(self, path: str, form: WireForm) -> Route:
        """Where a protocol is spoken."""
        return Route(path, self._answer_errors(partial(self._ask, form), form), methods=["POST"])

    def _answer_errors(
        self, handle: Callable[[Request], Awaitable[Response]], form: WireForm = CHAT
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler, with whatever goes wrong in it told in the protocol's form."""

        async def handled(request: Request) -> Response:
            try:
                self._pages.check(request.headers)
                reply = await handle(request)
            except ApiError as error:
                reply = _refused(error, form)
            except ClientDisconnect:
                reply = Response(status_code=CLIENT_GONE)
            except Exception:
                _log.exception("a request failed")
                reply = _refused(ApiError(500, "the gateway failed; its log says of what", code="internal_error"), form)
            if self.parts is not None:
                self.parts.metrics.requests.labels(str(reply.status_code)).inc()
            return reply

        return handled

    def _ready(self) -> Parts:
        if self.parts is None:
            raise ApiError(503, "the gateway is starting", code="not_ready", retry_after=1)
        if self.parts.failed is not None:
            raise ApiError(503, "the gateway failed and ends; ask the next one", code="not_ready", retry_after=1)
        return self.parts

    async def _ask(self, form: WireForm, request: Request) -> Response:
        asked = await self._read(form, request)
        watch = Watch(request.receive)
        reply: Response | None = None
        try:
            with ExitStack() as held:
                held.enter_context(asked.parts.access.place(asked.key, asked.given.n or 1))
                accepted = await self._accept(asked)
                if accepted.request.stream:
                    reply = await _stream(accepted, held, watch)
                else:
                    reply = await _whole(accepted)
        except asyncio.CancelledError:
            if not watch.client_gone:
                raise
            asked.parts.metrics.cancelled.inc()
            return Response(status_code=CLIENT_GONE)
        finally:
            if not isinstance(reply, Events):
                watch.end()
        return reply

    async def _read(self, form: WireForm, request: Request) -> _Asked:
        """The request, if the key may make it and its body can be understood."""
        started, at, parts = time.perf_counter(), datetime.now(UTC), self._ready()
        key = parts.access.who(authorization(request.headers))
        require_json(request.headers)
        body = await request.body()
        microseconds = _reading(body)
        given, messages, tools, json_format = await parts.work.do(key, microseconds, lambda: _read(form, body))
        caller = protocol.read_caller(given, request.headers)
        parts.access.require_own_agent(key, caller)
        parts.metrics.count_ignored(given.ignored)
        return _Asked(parts, form, given, messages, tools, json_format, caller, key, started, at, microseconds)

    async def _accept(self, asked: _Asked) -> AcceptedRequest:
        """The request with the policy that it names, if its answer can be recorded."""
        parts, given = asked.parts, asked.given
        question = Question(
            policy=await self._policy(parts, asked.key, given.model, asked.caller.agent),
            messages=asked.messages,
            seeds=draw_seeds(given.seed, given.n or 1),
            max_tokens=min(given.requested_tokens or parts.answer_tokens, parts.answer_tokens),
            temperature=1.0 if given.temperature is None else given.temperature,
            top_p=1.0 if given.top_p is None else given.top_p,
            stop=given.stops,
            top_logprobs=(given.top_logprobs or 0) if given.logprobs else None,
            with_end=bool(given.return_token_ids),
            key=asked.key,
            tools=asked.tools,
            response_format=asked.json_format,
            thoughts=given.reasoning_format or "parsed",
        )
        call_id = asked.form.prefix + next(self._ids)
        accepted = AcceptedRequest(
            parts, asked.form, given, question, asked.caller, asked.key, call_id, asked.started, asked.at
        )
        await parts.work.do(asked.key, asked.microseconds, accepted.require_recordable)
        return accepted

    async def _policy(self, parts: Parts, key: str, asked: str, agent: str | None) -> Target:
        """The policy that is asked for; the caller holds a place, since the ledger may have to be asked."""
        name = parts.names.resolve(asked)
        known = parts.directory.known(name, agent)
        if known is None:
            known = await parts.work.ask_ledger(key, lambda: parts.directory.find(name))
        if not parts.source.serves(known):
            raise ApiError(404, f"the weights of {known.name} are not kept", param="model", code="model_not_found")
        return known

    async def _feedback(self, request: Request) -> Response:
        parts = self._ready()
        key = parts.access.who(authorization(request.headers))
        require_json(request.headers)
        body = await request.body()
        given = await parts.work.do(key, _reading(body), lambda: read_feedback(body))
        return _json(await take_feedback(parts, key, given, request.headers))

    async def _probe(self, _request: Request) -> Response:
        """What a client gets that asks whether anybody is there, or what may be asked."""
        self._ready()
        return Response(status_code=204, headers={"allow": "HEAD, OPTIONS, POST"})

    async def _models(self, request: Request) -> Response:
        parts = self._ready()
        parts.access.who(authorization(request.headers))
        names = parts.directory.names()
        names |= {alias: names[name] for alias, name in parts.names.listed().items() if name in names}
        return _json({"object": "list", "data": [_model_entry(parts, name, policy) for name, policy in names.items()]})

    async def _model(self, request: Request) -> Response:
        parts = self._ready()
        key = parts.access.who(authorization(request.headers))
        name = request.path_params["name"]
        with parts.access.place(key, 1):
            policy = await self._policy(parts, key, name, None)
        return _json(_model_entry(parts, name, policy))

    async def _health(self, _request: Request) -> Response:
        """200 where policies can be asked, even without PostgreSQL; what is missing for more is named."""
        if self.parts is None:
            return _json({"status": "starting", "missing": ["the engine is being made ready"]}, 503)
        if self.parts.failed is not None:
            return _json({"status": "failed", "missing": [f"the thread {self.parts.failed}, which failed"]}, 503)
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
        parts.access.who(authorization(request.headers))
        return Response(parts.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _draw_ids() -> Iterator[str]:
    """Ids of completions, which nobody can guess."""
    while True:
        drawn = secrets.token_hex(12 * IDS_TOGETHER)
        yield from (drawn[start : start + 24] for start in range(0, len(drawn), 24))


def _cors(origins: Sequence[str]) -> Middleware:
    """What tells a browser that these pages may read the answers."""
    return Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])


async def _stream(accepted: AcceptedRequest, held: ExitStack, watch: Watch) -> Response:
    source, question = accepted.parts.source, accepted.question
    pieces = read_pieces(source.pieces(question), question, in_thought=source.opens_thought)
    first = await anext(pieces)  # what is refused, is refused with a status
    return Events(accepted, first, pieces, held.pop_all(), watch)


async def _whole(accepted: AcceptedRequest) -> Response:
    source, question = accepted.parts.source, accepted.question
    answers = await source.answers(question)
    answers = [read_answer(answer, question, in_thought=source.opens_thought) for answer in answers]
    await accepted.record(dict(enumerate(answers)))
    tokens = sum(answer.completion_tokens for answer in answers) * (1 + (question.top_logprobs or 0))
    form, context = accepted.form, accepted.context
    body = await accepted.parts.work.do(accepted.key, tokens, lambda: form.reply(context, answers))
    return Response(body, headers=accepted.headers, media_type="application/json")


def _reading(body: bytes) -> float:
    """Microseconds that it may take to read a body: most where it is many small values."""
    return min(len(body) / 8, LONG_MICROSECONDS)


def _read(form: WireForm, body: bytes) -> tuple[ChatRequest, list[Message], OfferedTools | None, dict[str, Any] | None]:
    request = form.read(body)
    return request, protocol.plain_messages(request), request.offered, request.json_format


def _model_entry(parts: Parts, name: str, policy: Target) -> dict[str, Any]:
    owner = BASE if policy.step == 0 else parts.model
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, "policy": policy.name}


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _refused(error: ApiError, form: WireForm = CHAT) -> Response:
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Response(form.error(error), error.status, headers, "application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _refused(ApiError(status, f"{request.method} {request.url.path} is not served here", code="not_found"))
