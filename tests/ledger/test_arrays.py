"""Arrays that are laid out at once are those that the driver would have made of lists."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from babylon_assets.ledger.arrays import fixed_arrays, text_arrays

Conn = psycopg.Connection[Any]
BOUNDS = [0, 2, 2, 5, 6]


def stored(conn: Conn, kind: str, arrays: Iterable[bytes]) -> list[Any]:
    """What PostgreSQL reads in arrays that are written to it as they are."""
    conn.execute(f"CREATE TEMP TABLE given (id serial, value {kind}[]) ON COMMIT DROP".encode())
    with conn.cursor().copy("COPY given (value) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["bytea"])
        for array in arrays:
            copy.write_row((array,))
    found = [row[0] for row in conn.execute("SELECT value FROM given ORDER BY id")]
    conn.rollback()
    return found


def cut(values: list[Any]) -> list[list[Any]]:
    return [values[start:end] for start, end in pairwise(BOUNDS)]


SIX: dict[str, Any] = {"min_size": 6, "max_size": 6}
FLOATS = st.lists(st.floats(), **SIX)


@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    FLOATS | st.just([0.5, float("nan"), 1.0, float("nan"), -2.0, float("nan")]),
    st.lists(st.integers(-(2**31), 2**31 - 1), **SIX),
    st.lists(st.booleans(), **SIX),
    st.data(),
)
def test_arrays_come_back_and_nan_is_null(
    conn: Conn, floats: list[float], whole: list[int], flags: list[bool], data: Any
) -> None:
    texts = data.draw(
        st.lists(st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=4), **SIX)
    )
    known = [None if value != value else value for value in floats]
    assert stored(conn, "float8", fixed_arrays(np.array(floats), BOUNDS, "float8")) == cut(known)
    assert stored(conn, "int4", fixed_arrays(np.array(whole), BOUNDS, "int4")) == cut(whole)
    assert stored(conn, "bool", fixed_arrays(np.array(flags), BOUNDS, "bool")) == cut(flags)
    assert stored(conn, "text", text_arrays(texts, BOUNDS)) == cut(texts)
