"""Rows matched by keys and time, against a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.environments.babylon.matching import InTime, encoded, mapped, paired, take_rows

Rows = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(-5, 5)), max_size=12)


def columns(rows: list[tuple[str | None, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([key for key, _ in rows], dtype=object), np.array([at for _, at in rows], dtype=np.int64)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(Rows, Rows, st.booleans())
def test_each_way_finds_what_a_search_through_all_rows_finds(
    asked: list[tuple[str | None, int]], there: list[tuple[str | None, int]], many: bool
) -> None:
    (keys, at), (other, times) = columns(asked), columns(there)
    unit = 1
    (codes, other_codes), _ = encoded(keys, other)
    if many:  # so many keys and times that one number does not hold both: times are numbered first
        codes, other_codes = (np.where(each < 0, -1, each * 2**50) for each in (codes, other_codes))
        at, times, unit = at * 10**6, times * 10**6, 10**6
    index = InTime(other_codes, times)
    found = {
        "last": index.last(codes, at),
        "first": index.first(codes, at),
        "strictly": index.first(codes, at, strictly=True),
        "nearest": index.nearest(codes, at, within=3 * unit),
    }
    for row, (key, time) in enumerate(asked):
        same = [n for n, (each, _) in enumerate(there) if each is not None and each == key]
        before = [n for n in same if there[n][1] <= time]
        after = [n for n in same if there[n][1] >= time]
        last = max(before, key=lambda n: (there[n][1], n), default=-1)
        first = min(after, key=lambda n: (there[n][1], n), default=-1)
        assert found["last"][row] == last
        assert found["first"][row] == first
        later = [n for n in after if there[n][1] > time]
        assert found["strictly"][row] == min(later, key=lambda n: (there[n][1], n), default=-1)
        away = {n: abs(there[n][1] - time) for n in (last, first) if n >= 0}
        near = min(away, key=lambda n: (away[n], n != last), default=-1)
        assert found["nearest"][row] == (near if near >= 0 and away[near] <= 3 else -1)


def test_a_pair_lacks_its_number_where_either_half_does() -> None:
    assert paired(np.array([0, 1, -1, 1]), np.array([2, 0, 1, -1]), 3).tolist() == [2, 3, -1, -1]


def test_a_function_is_called_once_for_each_text() -> None:
    calls: list[str] = []

    def length(text: str) -> int:
        calls.append(text)
        return len(text)

    values = np.array(["aa", None, "b", "aa"], dtype=object)
    assert mapped(values, length, -1).tolist() == [2, -1, 1, 2]
    assert sorted(calls) == ["aa", "b"]


def test_no_row_takes_what_is_missing() -> None:
    assert take_rows(np.array([1.5, 2.5]), np.array([1, -1]), 0.0).tolist() == [2.5, 0.0]
    assert np.isnan(take_rows(np.array([1.5]), np.array([-1]))).all()


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_is_found_among_nothing(count: int) -> None:
    keys, nothing = np.zeros(count, dtype=np.int64), np.zeros(0, dtype=np.int64)
    assert InTime(nothing, nothing).nearest(keys, keys, 5).tolist() == [-1] * count
