"""The gateway's one request, in the form of OpenAI's chat completions, with its checks, its caller and its refusals.

The other protocols are turned into it. Beyond the standard: `return_token_ids`, as vLLM has it, adds the token ids of
prompt and answer, and `reasoning_format`, as Groq has it, says where thoughts go. What cannot be done is refused by
name. Other fields that are not known are ignored; the reply's header and the record name them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from babylon_assets.domain.chat_turns import UnreadableMessageError, read_tool_calls
from babylon_assets.domain.policies import Caller
from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.offered_tools import OfferedTools

MOST_CHOICES = 16
MOST_MESSAGES = 4096
MOST_STOPS = 4
MOST_TOOLS = 128
MOST_TOP_LOGPROBS = 20
#: Longest id of an agent or a trajectory.
LONGEST_NAME = 256
#: Longest text at which an answer may be made to end.
LONGEST_STOP = 1000
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

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | RefusalPart] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None

    def plain(self) -> Message:
        """As the engine takes it; `developer` is OpenAI's newer word for `system`, a refusal is what was answered.

        Raises:
            UnreadableMessageError: a tool call is of no known form.
        """
        given = self.content or self.refusal or ""
        is_result = self.role in ("tool", "function")
        return Message(
            role={"developer": "system", "function": "tool"}.get(self.role, self.role),
            content=given if isinstance(given, str) else "".join(part.text for part in given),
            tool_calls=read_tool_calls(self.tool_calls, self.function_call) if self.role == "assistant" else (),
            tool_call_id=self.tool_call_id if is_result else None,
            name=self.name if is_result else None,
            reasoning=self.reasoning_content if self.role == "assistant" else None,
        )


class Function(msgspec.Struct, omit_defaults=True):
    """A function that an answer may call; `parameters` is a JSON schema of its arguments."""

    name: Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00-\x1f\x7f-\x9f<>]*$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    """A tool; the policies can call functions only."""

    function: Function
    type: Literal["function"] = "function"


class FunctionName(msgspec.Struct):
    """The name of a function."""

    name: str


class NamedTool(msgspec.Struct):
    """The function that has to be called."""

    function: FunctionName
    type: Literal["function"] = "function"


class JsonSchema(msgspec.Struct, omit_defaults=True):
    """A schema that an answer has to fulfil."""

    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, omit_defaults=True):
    """What an answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct):
    """What a stream ends with."""

    include_usage: bool | None = None


_Stop = Annotated[str, Meta(max_length=LONGEST_STOP)]


class ChatRequest(msgspec.Struct):
    """The body of /v1/chat/completions.

    Attributes:
        functions, function_call: the older form of `tools` and `tool_choice`; an answer of it has one call at most.
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
    tools: Annotated[list[Tool], Meta(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    functions: Annotated[list[Function], Meta(max_length=MOST_TOOLS)] | None = None
    function_call: Literal["none", "auto"] | FunctionName | None = None
    response_format: ResponseFormat | None = None
    reasoning_format: Literal["parsed", "raw", "hidden"] | None = None
    ignored: Annotated[tuple[str, ...], Meta(max_length=0)] = ()

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most_calls(self) -> int | None:
        """How many calls of tools an answer may have; None where that is not bounded."""
        return 1 if self.functions else None

    @property
    def offered(self) -> OfferedTools | None:
        """The tools that the answer may call."""
        tools = self.tools or [Tool(function) for function in self.functions or ()]
        choice = self.function_call if self.functions else self.tool_choice
        if not tools or choice == "none":
            return None
        name = choice.function if isinstance(choice, NamedTool) else choice
        return OfferedTools(msgspec.to_builtins(tools), name.name if isinstance(name, FunctionName) else name or "auto")

    @property
    def json_format(self) -> dict[str, Any] | None:
        """The form in which the answer has to be JSON, if it has to."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        return dict(msgspec.to_builtins(self.response_format))

    @property
    def requested_tokens(self) -> int | None:
        """The longest answer that is wanted, if that is said."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


def check(request: ChatRequest) -> None:
    """Refuse what the fields of a request do not say together.

    Raises:
        ApiError: 400 with the field that is at fault.
    """
    _check_tools(request)
    form = request.response_format
    if (
        form is not None
        and form.type == "json_schema"
        and (form.json_schema is None or form.json_schema.schema is None)
    ):
        raise ApiError(400, "json_schema needs a schema", param="response_format", code="invalid_value")
    if request.top_logprobs and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value")
    if "" in request.stops:
        raise ApiError(400, "a stop may not be empty", param="stop", code="invalid_value")


def _check_tools(request: ChatRequest) -> None:
    if request.functions and request.tools:
        reason = "functions is the older form of tools; send one of them"
        raise ApiError(400, reason, param="functions", code="invalid_value")
    if request.tool_choice == "required" and not request.tools:
        raise ApiError(400, "tool_choice needs tools", param="tool_choice", code="invalid_value")
    choice, call = request.tool_choice, request.function_call
    chosen = {
        "tool_choice": (choice.function if isinstance(choice, NamedTool) else None, request.tools),
        "function_call": (call if isinstance(call, FunctionName) else None, request.functions),
    }
    for param, (name, offered) in chosen.items():
        functions = [entry.function if isinstance(entry, Tool) else entry for entry in offered or ()]
        if name is not None and name.name not in [function.name for function in functions]:
            reason = f"{param} names {name.name[:LONGEST_NAME]!r}, which is not offered"
            raise ApiError(400, reason, param=param, code="invalid_value")


def plain_messages(request: ChatRequest) -> list[Message]:
    """The conversation as it is asked and recorded.

    Raises:
        ApiError: 400 for a tool call that cannot be read.
    """
    messages: list[Message] = []
    for number, message in enumerate(request.messages):
        try:
            messages.append(message.plain())
        except UnreadableMessageError:
            param = f"messages[{number}].tool_calls"
            raise ApiError(400, f"{param} has a call without a name", param=param, code="invalid_value") from None
    return messages


def read_caller(request: ChatRequest, headers: Mapping[str, str]) -> Caller:
    """Who asks: headers X-Babylon-Agent, -Trajectory, -Step and -At; else `metadata`; the agent also from `user`.

    Raises:
        ApiError: 400 when the step is no number, the time no time, or a name too long.
    """
    given = request.metadata or {}

    def read_name(name: str) -> str | None:
        return headers.get(f"x-babylon-{name}") or given.get(name) or given.get(f"{name}_id") or None

    agent, trajectory = _name("agent", read_name("agent") or request.user), _name("trajectory", read_name("trajectory"))
    return Caller(agent, trajectory, _step(read_name("step")), read_time(read_name("at")))


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


def read_time(text: str | None) -> datetime | None:
    """An ISO time with a zone, in UTC. Raises ApiError: 400 for any other text."""
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


class Token(msgspec.Struct):
    """A token in a `logprobs` object.

    Attributes:
        bytes: its own, which may be a part of a character; those of an answer's tokens together are its text in UTF-8.
    """

    token: str
    logprob: float
    bytes: Sequence[int] | None
    top_logprobs: list[Token]
