"""What the column `body` of `raw_trajectories` holds, in the form of today and in the one before."""

from __future__ import annotations

from typing import Any

import msgspec

from babylon_assets.domain.frames import FactRow
from babylon_assets.domain.trajectories import CallHead, StepFacts, restore_step


class Body(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the column `body` holds, as JSON: all but the texts, which are in `chat`, as JSON under zstd."""

    facts: list[StepFacts]
    samples: list[CallHead]


class OlderBody(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A body whose steps are of any form."""

    facts: list[list[Any]]
    samples: list[CallHead]


class Facts(msgspec.Struct, frozen=True, gc=False, array_like=True):
    facts: list[FactRow]


class Heads(msgspec.Struct, frozen=True, gc=False, array_like=True):
    facts: msgspec.Raw
    samples: list[CallHead]


decode_heads = msgspec.json.Decoder(Heads).decode
encode_body = msgspec.json.Encoder().encode
decode_new_facts = msgspec.json.Decoder(Facts).decode
decode_new_body = msgspec.json.Decoder(Body).decode
decode_older_body = msgspec.json.Decoder(OlderBody).decode


def decode_body(content: bytes) -> Body:
    try:
        return decode_new_body(content)
    except msgspec.ValidationError:
        older = decode_older_body(content)
        return Body([restore_step(values) for values in older.facts], older.samples)


def decode_facts(content: bytes) -> list[FactRow]:
    try:
        return decode_new_facts(content).facts
    except msgspec.ValidationError:
        return [msgspec.structs.astuple(fact) for fact in decode_body(content).facts]
