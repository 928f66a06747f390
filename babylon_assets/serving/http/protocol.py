"""OpenAI's chat completions as the gateway speaks them: requests that are checked, responses, stream chunks and errors.

Beyond the standard: `return_token_ids`, as vLLM has it, adds the token ids of prompt and answer. What would change the
form of an answer and cannot be done is refused by name. Other fields that are not known are ignored; the reply's header
and the record name them. Nothing here knows who answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from babylon_assets.domain.cut_characters import replace_halves
from babylon_assets.domain.policies import Caller
from babylon_assets.domain.trajectories import Message

MOST_CHOICES = 16
MOST_MESSAGES = 4096
MOST_STOPS = 4
MOST_TOP_LOGPROBS = 20
#: Longest id of an agent or a trajectory.
LONGEST_NAME = 256
#: Longest text at which an answer may be made to end.
LONGEST_STOP = 1000
#: How many names of fields that are ignored are told, and how much of each.
MOST_IGNORED, LONGEST_FIELD = 32, 64
_INT8, _INT4 = 2**63 - 1, 2**31 - 1


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: HTTP's.
        message: for a person.
        param: the request's field that is at fault.
        code: OpenAI's, for programs.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    def body(self) -> bytes:
        """The error in OpenAI's form."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        body = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": body})


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """A part of a message's content that is text."""

    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    """A part of an assistant's message that says why it does not answer."""

    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


class ChatMessage(msgspec.Struct):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None

    def plain(self) -> Message:
        """As the engine takes it; `developer` is OpenAI's newer word for `system`, a refusal is what was answered."""
        given = self.content or self.refusal or ""
        content = given if isinstance(given, str) else "".join(part.text for part in given)
        return Message("system" if self.role == "developer" else self.role, content)


class StreamOptions(msgspec.Struct):
    """What a stream ends with."""

    include_usage: bool | None = None


_Stop = Annotated[str, Meta(max_length=LONGEST_STOP)]


class ChatRequest(msgspec.Struct):
    """The body of /v1/chat/completions.

    Attributes:
        ignored: names of the fields that were given and change nothing here; never read from the body.
    """

    model: Annotated[str, Meta(max_length=LONGEST_NAME)]
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MOST_MESSAGES)]
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=_INT4)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=_INT4)] | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Meta(ge=-_INT8, le=_INT8)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Meta(max_length=LONGEST_NAME)] | None = None
    metadata: dict[str, str] | None = None
    return_token_ids: bool | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    ignored: Annotated[tuple[str, ...], Meta(max_length=0)] = ()

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def requested_tokens(self) -> int | None:
        """The longest answer that is wanted, if that is said."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


_decode_request = msgspec.json.Decoder(ChatRequest).decode
_PLACE = re.compile(r" - at `\$\.?([^`\[]*)")
_OTHER_PART = re.compile(r"Invalid value '(\w{1,40})' - at `\$\.messages\[\d+\]\.content\[\d+\]\.type`")
_MISSING = re.compile(r"missing required field `(\w+)`")
_REFUSED = ("tools", "functions")
_KNOWN = {field.name for field in msgspec.structs.fields(ChatRequest)}
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
#: Values that ask for nothing.
_NEUTRAL = {b"null", b"0", b"0.0", b"false", b'""', b"[]", b"{}"}


def _repair(body: bytes) -> bytes:
    """The body; where it is no JSON for a character that was cut in two, as at the end of a bounded prompt, with that
    replaced."""
    try:
        _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        repaired, count = replace_halves(body)
        return repaired if count else body
    return body


def read_request(body: bytes) -> ChatRequest:
    """A request out of its body.

    Raises:
        ApiError: 400 with the field that is at fault.
    """
    try:
        body = _repair(body)
        request = _decode_request(body)
        request.ignored = _ignored(body)
    except msgspec.ValidationError as error:
        if other := _OTHER_PART.fullmatch(str(error)):
            reason = f"messages may hold text only, not {other[1]}: the policies read nothing else"
            raise ApiError(400, reason, param="messages", code="unsupported_content") from None
        missing, place = _MISSING.search(str(error)), _PLACE.search(str(error))
        param = missing[1] if missing else place[1] if place and place[1] else None
        raise ApiError(400, str(error)[:LONGEST_STOP], param=param, code="invalid_value") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    for name in _REFUSED:
        if getattr(request, name):
            raise ApiError(400, f"{name} is not supported", param=name, code="unsupported_parameter")
    for number, message in enumerate(request.messages):
        if message.tool_calls or message.function_call:
            param = f"messages[{number}].tool_calls"
            raise ApiError(400, f"{param} is not supported", param=param, code="unsupported_parameter")
    if request.response_format not in (None, {"type": "text"}):
        raise ApiError(400, "only text can be answered", param="response_format", code="unsupported_parameter")
    if request.top_logprobs and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value")
    if "" in request.stops:
        raise ApiError(400, "a stop may not be empty", param="stop", code="invalid_value")
    return request


def _ignored(body: bytes) -> tuple[str, ...]:
    """Names of the fields that nothing here knows and that ask for something, as fit for a header."""
    names = [
        name for name, value in _decode_fields(body).items() if name not in _KNOWN and bytes(value) not in _NEUTRAL
    ]
    return tuple(re.sub(r"[^A-Za-z0-9_.-]", "?", name[:LONGEST_FIELD]) for name in sorted(names)[:MOST_IGNORED])


def read_caller(request: ChatRequest, headers: Mapping[str, str]) -> Caller:
    """Who asks: headers X-Babylon-Agent, -Trajectory, -Step and -At; else `metadata`; the agent also from `user`.

    Raises:
        ApiError: 400 when the step is no number, the time no time, or a name too long.
    """
    given = request.metadata or {}

    def read_name(name: str) -> str | None:
        return headers.get(f"x-babylon-{name}") or given.get(name) or given.get(f"{name}_id") or None

    agent, trajectory = _name("agent", read_name("agent") or request.user), _name("trajectory", read_name("trajectory"))
    return Caller(agent, trajectory, _step(read_name("step")), _time(read_name("at")))


def _name(what: str, text: str | None) -> str | None:
    if text is not None and (len(text) > LONGEST_NAME or "\0" in text):
        raise ApiError(400, f"the {what}'s id is too long or holds NUL", param="metadata", code="invalid_value")
    return text


def _step(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}", text):
        raise ApiError(400, f"the step is {text[:40]!r}, which is no number", param="metadata", code="invalid_value")
    return int(text)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo is not None else datetime.min
    except (ValueError, OverflowError):
        at = datetime.min
    if at.tzinfo is None:
        raise ApiError(400, f"{text[:40]!r} is no ISO time with a zone", param="metadata", code="invalid_value")
    return at


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer as it is told to the client.

    Attributes:
        tokens: text of each sampled token but an end of turn, with the log-probability and the likeliest ones; None
            where they are not known or were not asked for.
    """

    text: str
    finish_reason: str
    tokens: list[Token] | None
    completion_tokens: int
    token_ids: Sequence[int] | None


class Token(msgspec.Struct):
    """A token in a `logprobs` object.

    Attributes:
        bytes: its own, which may be a part of a character; those of an answer's tokens together are its text in UTF-8.
    """

    token: str
    logprob: float
    bytes: Sequence[int] | None
    top_logprobs: list[Token]


def response(
    call_id: str,
    created: int,
    model: str,
    prompt_tokens: int,
    choices: Sequence[Choice],
    prompt_token_ids: Sequence[int] | None = None,
) -> bytes:
    """The body that answers a request which is not streamed; token ids are in it where they are given."""
    body: dict[str, Any] = {
        "id": call_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(index, choice) for index, choice in enumerate(choices)],
        "usage": usage(prompt_tokens, sum(choice.completion_tokens for choice in choices)),
        "system_fingerprint": model,
    }
    if prompt_token_ids is not None:
        body["prompt_token_ids"] = prompt_token_ids
    return msgspec.json.encode(body)


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    body: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None},
        "logprobs": None if choice.tokens is None else {"content": choice.tokens, "refusal": None},
        "finish_reason": choice.finish_reason,
    }
    if choice.token_ids is not None:
        body["token_ids"] = choice.token_ids
    return body


def usage(prompt: int, completion: int) -> dict[str, int]:
    """How many tokens an answer took."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"


def chunk(
    call_id: str,
    created: int,
    model: str,
    index: int,
    delta: Mapping[str, str],
    finish_reason: str | None = None,
    tokens: Sequence[Token] | None = None,
    ids: tuple[Sequence[int] | None, Sequence[int] | None] | None = None,
) -> bytes:
    """A piece of a streamed answer.

    Args:
        ids: token ids of the prompt and of the whole answer, where they are wanted with its end.
    """
    choice: dict[str, Any] = {
        "index": index,
        "delta": delta,
        "logprobs": None if tokens is None else {"content": tokens, "refusal": None},
        "finish_reason": finish_reason,
    }
    body = {"id": call_id, "object": "chat.completion.chunk", "created": created, "model": model}
    body |= {"system_fingerprint": model, "choices": [choice]}
    if ids is not None:
        body["prompt_token_ids"], choice["token_ids"] = ids
    return event(body)


def usage_chunk(call_id: str, created: int, model: str, prompt: int, completion: int) -> bytes:
    """What a stream ends with when usage was asked for."""
    body = {"id": call_id, "object": "chat.completion.chunk", "created": created, "model": model}
    return event({**body, "choices": [], "usage": usage(prompt, completion)})
