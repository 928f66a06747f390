"""The calls of tools that an answer's text spells: JSON as Hermes, Qwen and Llama write it, or the XML of Qwen3-Coder.

What is no call, or of no tool that was offered, gives none, and is text. In XML a value stands without quotes, so it is
read by the tool's schema: what may be a text is one, anything else is JSON.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from babylon_assets.domain.json_nesting import decode_shallow
from babylon_assets.domain.trajectories import ToolCall

CALL, CALL_END = "<tool_call>", "</tool_call>"
#: A schema of the arguments, by the tool's name.
Parameters = Mapping[str, Mapping[str, Any]]
_XML = "<function="
_XML_END = re.compile(rf"</function>\s*{CALL_END}")
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*)</function>\s*", re.DOTALL)
#: A value may hold anything but what ends it, and stands between line breaks of its own.
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*(?=<parameter=|\Z)", re.DOTALL)
#: As chat templates write the values of a call, which is how Python does.
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
#: Parts of one argument's schema that are asked for its types.
MOST_ALTERNATIVES = 64
_NO_JSON = (msgspec.DecodeError, UnicodeError)


def find_end(text: str) -> int:
    """Where the mark stands that ends a call, given what follows the one that began it; -1 where it is not there yet.

    A value in XML may hold such a mark.
    """
    if not text.lstrip().startswith(_XML):
        return text.find(CALL_END)
    end = _XML_END.search(text)
    return -1 if end is None else end.end() - len(CALL_END)


def read_calls(text: str, tools: Parameters) -> tuple[ToolCall, ...]:
    """The calls that a text spells, all of offered tools; none where it is anything else."""
    if text.lstrip().startswith(_XML):
        return _read_xml(text, tools)
    try:
        value = decode_shallow(text.strip().rstrip(";"))
    except _NO_JSON:
        return ()
    calls = [_call(entry, tools) for entry in (value if isinstance(value, list) else [value])]
    return tuple(call for call in calls if call is not None) if all(calls) else ()


def _call(value: Any, tools: Parameters) -> ToolCall | None:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in tools:
        return None
    return _new_call(name, value.get("arguments", value.get("parameters", {})))


def _new_call(name: str, arguments: Any) -> ToolCall:
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(f"call_{secrets.token_hex(12)}", name, text)


def _read_xml(text: str, tools: Parameters) -> tuple[ToolCall, ...]:
    function = _FUNCTION.fullmatch(text)
    if function is None or function[1] not in tools:
        return ()
    schema, body, at = tools[function[1]], function[2], 0
    properties, arguments = schema.get("properties"), dict[str, Any]()
    while match := _PARAMETER.match(body, at):
        given = properties.get(match[1]) if isinstance(properties, Mapping) else None
        arguments[match[1]], at = _read_value(match[2], json_types(given, schema)), match.end()
    return () if body[at:].strip() else (_new_call(function[1], arguments),)


def _read_value(text: str, types: set[str]) -> Any:
    """A value of these types; what is none of them is the text that it is."""
    word = _PYTHON_WORDS.get(text.strip(), text.strip())
    if is_text(types):
        return None if word == "null" and "null" in types else text
    try:
        return decode_shallow(word)
    except _NO_JSON:
        return text


def is_text(types: set[str]) -> bool:
    """Whether a value of these types stands for itself; one whose schema does not say is a text."""
    return not types or "string" in types


def json_types(schema: Any, root: Any) -> set[str]:
    """JSON's types that a schema lets a value have, as far as `MOST_ALTERNATIVES` of it say; empty where none does.

    Args:
        root: what the schema's references are within.
    """
    types, waiting, seen = set[str](), [schema], set[int]()
    while waiting and len(seen) < MOST_ALTERNATIVES:
        part = waiting.pop()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        given = part.get("type", list(map(_type_of, _values(part))))
        named = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        types |= {name for name in named if isinstance(name, str)}
        for several in ("anyOf", "oneOf", "allOf"):
            waiting += part[several] if isinstance(part.get(several), list) else ()
        waiting.append(_resolve(part.get("$ref"), root))
    return types


def _values(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a schema names one by one."""
    listed = schema.get("enum")
    return [*(listed if isinstance(listed, list) else ()), *([schema["const"]] if "const" in schema else ())]


def _type_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", type(None): "null"}
    return names.get(type(value), "object")


def _resolve(reference: Any, root: Any) -> Any:
    """What a reference within a schema stands for; None for any other reference."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for name in reference[2:].split("/"):
        root = root.get(name) if isinstance(root, Mapping) else None
    return root
