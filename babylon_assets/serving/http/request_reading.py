"""From the body of a request to a `ChatRequest`, in whatever protocol, and what is said of a body that is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.inspect import ListType, StructType, Type, UnionType, type_info

from babylon_assets.domain.cut_characters import replace_halves
from babylon_assets.domain.json_nesting import NESTED_TOO_DEEPLY, is_too_deep
from babylon_assets.serving.http.protocol import LONGEST_STOP, MOST_TOOLS, ApiError, ChatRequest, check

Given = TypeVar("Given", bound=msgspec.Struct)
#: How many names of fields that are ignored are told, and how much of each.
MOST_IGNORED, LONGEST_FIELD = 32, 64
_PLACE = re.compile(r" - at `\$\.?([^`\[]*)")
_OTHER_PART = re.compile(r"Invalid value '(\w{1,40})' - at `\$\.messages\[\d+\]\.content\[\d+\]\.type`")
_MISSING = re.compile(r"missing required field `(\w+)`")
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
#: What is said comes with whatever other servers put beside it: its names are not looked at.
_CONVERSATIONS = {"messages", "input", "system"}
#: Values that ask for nothing, and fields of which zero asks for nothing: of others, as of a misspelled temperature, it
#: asks for something.
_NEUTRAL = {b"null", b"false", b'""', b"[]", b"{}"}
_NEUTRAL_AT_ZERO = {"min_p", "top_k", "presence_penalty", "frequency_penalty", "min_tokens", "top_logprobs"}


class RequestReader(Generic[Given]):
    """Reads the requests of one protocol.

    Args:
        given: what a body of it has.
        as_chat: gives the fields of a `ChatRequest` that ask the same.
    """

    def __init__(self, given: type[Given], as_chat: Callable[[Given], Mapping[str, Any] | ChatRequest]) -> None:
        self._decode, self._as_chat = msgspec.json.Decoder(given).decode, as_chat
        self._form = type_info(given)

    def read(self, body: bytes) -> ChatRequest:
        """A request out of its body.

        Raises:
            ApiError: 400 with the field that is at fault.
        """
        with refusals():
            body, fields = repaired(body)
            request = msgspec.convert(self._as_chat(self._decode(body)), ChatRequest)
            request.ignored = _ignored(fields, self._form)
            _require_shallow(request)
        check(request)
        return request


def repaired(body: bytes) -> tuple[bytes, Mapping[str, msgspec.Raw]]:
    """A body and its fields; where it is no JSON for a character that was cut in two, as at the end of a bounded
    prompt, with that replaced."""
    try:
        return body, _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        whole, count = replace_halves(body)
        if not count:
            raise
        return whole, _decode_fields(whole)


@contextmanager
def refusals() -> Iterator[None]:
    """Say in the form of an error of the API what a body is that cannot be decoded.

    Raises:
        ApiError: 400 with the field that is at fault.
    """
    try:
        yield
    except msgspec.ValidationError as error:
        if other := _OTHER_PART.fullmatch(str(error)):
            reason = f"messages may hold text only, not {other[1]}: the policies read nothing else"
            raise ApiError(400, reason, param="messages", code="unsupported_content") from None
        missing, place = _MISSING.search(str(error)), _PLACE.search(str(error))
        param = place[1] if place and place[1] else missing[1] if missing else None
        raise ApiError(400, str(error)[:LONGEST_STOP], param=param, code="invalid_value") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, f"the body is {NESTED_TOO_DEEPLY}", code="invalid_json") from None


def _require_shallow(request: ChatRequest) -> None:
    """Refuse what is kept of a request and cannot be read again by whoever trains on it."""
    for param in ("tools", "functions", "response_format"):
        if is_too_deep(msgspec.to_builtins(getattr(request, param))):
            raise ApiError(400, f"{param} is {NESTED_TOO_DEEPLY}", param=param, code="invalid_value")


def _ignored(fields: Mapping[str, msgspec.Raw], form: Type) -> tuple[str, ...]:
    """Names of the fields that nothing here knows and that ask for something, as fit for a header."""
    names = set(_unknown_names(fields, form, ""))
    return tuple(re.sub(r"[^A-Za-z0-9_.-]", "?", name[:LONGEST_FIELD]) for name in sorted(names)[:MOST_IGNORED])


def _unknown_names(fields: Mapping[str, msgspec.Raw], form: Type, place: str) -> Iterator[str]:
    """Of an object and of those in it, such as `tools.function.paramaters`."""
    assert isinstance(form, StructType)
    known = {field.encode_name: field.type for field in form.fields}
    for name, raw in fields.items():
        value = bytes(raw)
        if name in known:
            if name not in _CONVERSATIONS:
                yield from _unknown_within(value, known[name], f"{place}{name}.")
        elif name != form.tag_field and not _is_neutral(name, value):
            yield place + name


def _unknown_within(value: bytes, form: Type, place: str) -> Iterator[str]:
    forms = form.types if isinstance(form, UnionType) else (form,)
    if value.startswith(b"{"):
        objects = [struct for struct in forms if isinstance(struct, StructType)]
        if len(objects) == 1:
            yield from _unknown_names(_decode_fields(value), objects[0], place)
    elif value.startswith(b"["):
        for items in (several for several in forms if isinstance(several, ListType)):
            for item in _decode_items(value)[:MOST_TOOLS]:
                yield from _unknown_within(bytes(item), items.item_type, place)


def _is_neutral(name: str, value: bytes) -> bool:
    return value in _NEUTRAL or (name in _NEUTRAL_AT_ZERO and value in (b"0", b"0.0"))
