"""Identity by content: canonical JSON and the sha256 ids made from it.

Two values with the same content have the same bytes here, whatever the order of their keys, on every
platform. What is hashed, and where an id is kept, is decided by the modules that own the content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="sorted")


def canonical_json(obj: Any) -> bytes:
    """Compact UTF-8 JSON with sorted keys and floats in their shortest exact form.

    Dataclasses and msgspec structs are written as objects, dates in ISO 8601. A float that is not finite has
    no form in JSON and becomes null, as a missing value would.

    Raises:
        TypeError: the content has a value that JSON cannot express.
    """
    return _ENCODER.encode(obj)


def content_id(obj: Any) -> str:
    """The sha256 of the canonical JSON, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(canonical_json(obj)).hexdigest()


def content_sha256(parts: Iterable[bytes]) -> str:
    """The sha256 of canonical JSON that comes in parts: the same as `content_id` of the whole."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def bytes_id(parts: Iterable[bytes]) -> str:
    """The sha256 of several byte strings, each preceded by its length so that no two splits look alike."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
