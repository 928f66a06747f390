"""Ten thousand rows, nearly all of them broken, each in a way that hypothesis drew: what becomes of them.

Rows that PostgreSQL can store are read from its table, the others are decoded as they are. Of most kinds it is known
whether a row must be read or refused; of the others only that it may not be lost.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from babylon_assets.domain.trajectories import Quarantined, TrajectoryRecord
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon import game_record
from babylon_assets.environments.babylon.decoding import SourceRow, decode_row
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.ledger.database import Database
from benchmarks.datapath.rows import step, trajectory_row
from benchmarks.report import Row, at_least, at_most

ROWS, A_DRAW, LONG_ROWS, LONG = 10_000, 100, 6, 20_000_000
WINDOW = "2026-11-01T00:00"
_GOOD = json.dumps([step(random.Random(0), n, 1_790_812_800_000 + n, "HOLD", "m", "YES") for n in range(2)])
_NUMBERS, _PARTS = ("stepNumber", "timestamp"), ("environmentState", "llmCalls", "action")

#: A row's text, and whether it must be refused; None where either is right.
Mutated = tuple[bytes, bool | None]


def mutated(database: Database) -> list[Row]:
    """Write, read and judge the rows."""
    rows = _drawn()
    storable = {n: text.decode() for n, (_, (text, _)) in enumerate(rows) if _is_storable(text)}
    start, end = HOURLY.bounds(WINDOW)
    with database.connect() as conn:
        copy_rows(
            conn,
            "trajectories",
            [trajectory_row(WINDOW, f"x{n}", "agent-0", text, 2) for n, text in storable.items()],
        )
        found = list(game_record.read_window(conn, WINDOW))
    direct = [
        decode_row(SourceRow(WINDOW, True, f"x{n}", "agent-0", None, start, end, "completed", None, None, text))
        for n, (_, (text, _)) in enumerate(rows)
        if n not in storable
    ]
    return _judged(rows, [*found, *direct])


def _judged(rows: list[tuple[str, Mutated]], found: list[TrajectoryRecord | Quarantined]) -> list[Row]:
    came = Counter(row.trajectory_id for row in found)
    refused = {row.trajectory_id: row for row in found if isinstance(row, Quarantined)}
    wrong = [kind for n, (kind, (_, bad)) in enumerate(rows) if bad is not None and bad != (f"x{n}" in refused)]
    lost = sum(came[f"x{n}"] != 1 for n in range(len(rows)))
    silent = sum(not (row.reason and row.place) for row in refused.values())
    if wrong:
        print("judged wrongly:", dict(Counter(wrong)))
    return [
        Row("mutated rows in quarantine", len(refused), "rows"),
        at_least("kinds of mutations", len({kind for kind, _ in rows}), "kinds", len(_KINDS)),
        at_most("mutated rows lost, doubled or crashed", lost, "rows", 0),
        at_most("good rows refused and bad rows read", len(wrong), "rows", 0),
        at_most("quarantined rows without a reason", silent, "rows", 0),
    ]


def _drawn() -> list[tuple[str, Mutated]]:
    """A hundred draws of a hundred rows each, and a few that are 20 MB long."""
    rows: list[tuple[str, Mutated]] = []
    one = st.tuples(st.sampled_from(sorted(set(_KINDS) - {"20 MB"})), st.integers(0, 2**32))

    @settings(
        max_examples=(ROWS // A_DRAW) * 2, derandomize=True, database=None, deadline=None, phases=[Phase.generate]
    )
    @given(st.lists(one, min_size=A_DRAW, max_size=A_DRAW))
    def draw(drawn: list[tuple[str, int]]) -> None:
        if len(rows) < ROWS - LONG_ROWS:
            rows.extend((kind, _KINDS[kind](random.Random(seed))) for kind, seed in drawn)

    draw()
    long = [("20 MB", _KINDS["20 MB"](random.Random(n))) for n in range(LONG_ROWS)]
    return rows[: ROWS - LONG_ROWS] + long


def _truncated(rng: random.Random) -> Mutated:
    return _GOOD[: rng.randrange(len(_GOOD))].encode(), True


def _wrong_type(rng: random.Random) -> Mutated:
    """A number may be anything that can be ignored; a part of a step may not."""
    place = rng.choice(_NUMBERS + _PARTS)
    return _with(
        rng, place, rng.choice(['"x"', "true", "7"] + (["{}", "[]"] if place in _NUMBERS else []))
    ), place in _PARTS


def _null(rng: random.Random) -> Mutated:
    place = rng.choice(_NUMBERS + _PARTS)
    return _with(rng, place, "null"), place == "action"


def _not_a_number(rng: random.Random) -> Mutated:
    place = rng.choice(_NUMBERS + _PARTS)
    return _with(rng, place, rng.choice(["NaN", "Infinity", "-Infinity"])), place == "action"


def _huge(rng: random.Random) -> Mutated:
    return _with(rng, rng.choice(_NUMBERS), rng.choice(["1" + "0" * 400, "-1e400"])), None


def _surrogate(rng: random.Random) -> Mutated:
    return _GOOD.replace("I choose", rng.choice(["\\ud800", "\\udfff", "\\udc00\\ud800"]), 1).encode(), True


def _escaped_nul(_: random.Random) -> Mutated:
    return _GOOD.replace("I choose", "\\u0000", 1).encode(), False


def _raw_nul(rng: random.Random) -> Mutated:
    at = rng.randrange(1, len(_GOOD))
    return _GOOD[:at].encode() + b"\0" + _GOOD[at:].encode(), True


def _broken_utf8(rng: random.Random) -> Mutated:
    """In a text that is read; what is skipped is not looked at."""
    return _GOOD.encode().replace(
        b"I choose", rng.choice([b"\xed\xa0\x80", b"\xff", b"\xc3", b"\xf5\x80\x80\x80"]), 1
    ), True


def _deep(rng: random.Random) -> Mutated:
    depth = rng.randrange(2_000, 20_000)
    opened = rng.choice(["[", '{"a":'])
    return _GOOD.replace('"providerAccesses": []', f'"providerAccesses": {opened * depth}', 1).encode(), True


def _wrong_shape(rng: random.Random) -> Mutated:
    return rng.choice(["", "null", "{}", '"steps"', "[null]", "[[]]", "[1]", "7", "[" * 20_000]).encode(), True


def _a_character_more(rng: random.Random) -> Mutated:
    at = rng.randrange(len(_GOOD))
    return (_GOOD[:at] + rng.choice(['"', "}", "]", "\\", ",", "0", "\u2028"]) + _GOOD[at:]).encode(), None


def _long(rng: random.Random) -> Mutated:
    return _GOOD.replace("and trade.", "x" * LONG, 1).encode(), False


def _with(rng: random.Random, place: str, value: str) -> bytes:
    steps = json.loads(_GOOD)
    steps[rng.randrange(2)][place] = "@@"
    return json.dumps(steps).replace('"@@"', value).encode()


def _is_storable(text: bytes) -> bool:
    try:
        return "\0" not in text.decode()
    except UnicodeDecodeError:
        return False


_KINDS: dict[str, Callable[[random.Random], Mutated]] = {
    "untouched": lambda _: (_GOOD.encode(), False),
    "truncated": _truncated,
    "wrong type": _wrong_type,
    "null": _null,
    "NaN": _not_a_number,
    "10^400": _huge,
    "surrogate": _surrogate,
    "escaped NUL": _escaped_nul,
    "NUL": _raw_nul,
    "broken UTF-8": _broken_utf8,
    "deep nesting": _deep,
    "wrong shape": _wrong_shape,
    "a character more": _a_character_more,
    "20 MB": _long,
}
