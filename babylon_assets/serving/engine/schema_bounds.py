"""How large the JSON schemas of a request may be that its answer is kept to.

They are measured before a grammar is made of them. The time that takes, and the memory, grow with the square of some
measures and have no bound in others: a chain of 1,000 references ends a process whose stack is of the usual size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

#: Bytes of all schemas together, as JSON.
MOST_BYTES = 256 * 1024
#: Objects of all schemas together, and values in lists of values such as `enum`.
MOST_PARTS = 4_000
#: Properties of one object: an answer may go on with any of those that need not be there.
MOST_PROPERTIES = 400
#: Texts that answers are matched with: `pattern`, `format`, `patternProperties`.
MOST_PATTERNS = 100
#: Characters of a pattern, a property's name and a value that an answer has to have.
LONGEST_TEXT = 1_000
#: Schemas that have to hold at the same time as another, as in `allOf`, times the parts: llguidance copies one of them
#: for each alternative of the other.
MOST_COMBINED = 5_000
#: The numbers of `multipleOf` together, without their decimal points: for each remainder there is a state.
MOST_MULTIPLES = 10_000
_OF_ITS_OWN = frozenset({"properties", "patternProperties", "additionalProperties", "items", "prefixItems"})
_ALTERNATIVES = frozenset({"anyOf", "oneOf", "enum", "$ref"})
#: What is looked at in an object, beside that it is one.
_COUNTED = _OF_ITS_OWN | _ALTERNATIVES | {"allOf", "const", "required", "pattern", "format", "multipleOf"}
#: Numbers: integers have 64 bits in llguidance, and the least of them ends the process. Decimals have a digit for each
#: power of ten.
LEAST_NUMBER, MOST_NUMBER, SMALLEST_FRACTION = -(10**18), 2**64, 1e-18
_NUMBERS = "numbers are followed from -1e18 to 2^64, and no fraction smaller than 1e-18"
_PARTS = "objects and listed values"


class UnboundedSchemaError(ValueError):
    """Schemas that are larger than is followed; says which bound they pass."""


@dataclass(slots=True)
class SchemaSize:
    """What schemas have together.

    Attributes:
        parts: objects, and values in lists of values.
        properties: most of one object.
        patterns: texts that answers are matched with.
        longest: characters of the longest text that answers are matched with or have to have.
        combined: schemas that have to hold at the same time as another.
        multiples: the numbers of `multipleOf` together, without their decimal points.
    """

    parts: int = 0
    properties: int = 0
    patterns: int = 0
    longest: int = 0
    combined: int = 0
    multiples: int = 0

    def add(self, schema: Mapping[str, Any]) -> None:
        """Count one object, without those in it."""
        self.parts += 1
        if _COUNTED.isdisjoint(schema):
            return
        names = {*_mapping(schema, "properties"), *filter(_is_text, _listed(schema, "required"))}
        patterns = list(_mapping(schema, "patternProperties"))
        patterns += [schema[name] for name in ("pattern", "format") if _is_text(schema.get(name))]
        literals = [text for name in ("const", "enum") if name in schema for text in _texts(schema[name])]
        self.parts += len(literals)
        self.properties = max(self.properties, len(names) + len(_mapping(schema, "patternProperties")))
        self.patterns += len(patterns)
        self.combined += max(0, _schemas_at_once(schema) - 1)
        self.multiples += _digits(schema.get("multipleOf"))
        self.longest = max([self.longest, *map(len, names), *map(len, patterns), *map(len, literals)])


def require_bounded(schemas: Iterable[Mapping[str, Any]]) -> SchemaSize:
    """The size of schemas that may be followed.

    Raises:
        UnboundedSchemaError: they are larger.
    """
    listed = list(schemas)
    encoded = msgspec.json.encode(listed)
    _require("bytes", len(encoded), MOST_BYTES)
    _require(_PARTS, encoded.count(b'{"'), MOST_PARTS)  # most that pass this bound are refused without being walked
    size, waiting = SchemaSize(), list[Any](listed)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            size.add(value)
            waiting.extend([inner for inner in value.values() if not isinstance(inner, str)])
        elif isinstance(value, list):
            size.parts += sum(not isinstance(inner, dict | list | str) for inner in value)
            waiting.extend([inner for inner in value if not isinstance(inner, str)])
        elif isinstance(value, int | float) and not _is_bounded(value):
            raise UnboundedSchemaError(f"a number in it is {value:.3g}; {_NUMBERS}")
    _require(_PARTS, size.parts, MOST_PARTS)
    _require("properties in one object", size.properties, MOST_PROPERTIES)
    _require("patterns and formats", size.patterns, MOST_PATTERNS)
    _require("characters in one pattern, name or value", size.longest, LONGEST_TEXT)
    _require("for all multipleOf together, without their decimal points", size.multiples, MOST_MULTIPLES)
    if size.combined * size.parts > MOST_COMBINED:
        most = MOST_COMBINED // size.parts
        reason = (
            f"{size.combined} of its schemas have to hold at the same time as another (allOf, or beside anyOf or $ref)"
        )
        raise UnboundedSchemaError(f"{reason}; at most {most} may among {size.parts} {_PARTS}")
    return size


def _digits(number: Any) -> int:
    """A number without its decimal point."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return 0
    return int("".join(map(str, Decimal(str(number)).as_tuple().digits)))


def _is_bounded(number: float) -> bool:
    return LEAST_NUMBER <= number <= MOST_NUMBER and (number == 0 or abs(number) >= SMALLEST_FRACTION)


def _require(what: str, count: int, most: int) -> None:
    if count > most:
        raise UnboundedSchemaError(f"it has more than {most} {what}")


def _schemas_at_once(schema: Mapping[str, Any]) -> int:
    """How many schemas a value of this one has to fulfil."""
    is_own = not _OF_ITS_OWN.isdisjoint(schema)
    return len(_listed(schema, "allOf")) + len(_ALTERNATIVES & schema.keys()) + is_own


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            waiting.extend((*part, *part.values()))
        elif isinstance(part, list):
            waiting.extend(part)


def _listed(schema: Mapping[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _mapping(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
