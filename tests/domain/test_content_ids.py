"""Ids by content: the same content has the same id in any order, other content has another."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babylon_assets.domain.content_ids import bytes_id, canonical_json, content_id

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclass
class _Point:
    y: float
    x: float


def test_keys_are_sorted_and_floats_are_exact() -> None:
    assert (
        canonical_json({"b": 0.1 + 0.2, "a": [1, None, "é"]}) == '{"a":[1,null,"é"],"b":0.30000000000000004}'.encode()
    )


def test_a_dataclass_is_the_object_of_its_fields() -> None:
    assert canonical_json(_Point(y=2.0, x=1.0)) == canonical_json({"x": 1.0, "y": 2.0})


@settings(max_examples=100, derandomize=True)
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_the_order_of_keys_does_not_matter(content: dict[str, object]) -> None:
    assert content_id(dict(reversed(content.items()))) == content_id(content)


@settings(max_examples=100, derandomize=True)
@given(VALUES, VALUES)
def test_different_bytes_mean_different_ids(one: object, other: object) -> None:
    assert (content_id(one) == content_id(other)) == (canonical_json(one) == canonical_json(other))


def test_where_the_parts_are_split_matters() -> None:
    assert len({bytes_id([b"ab", b"c"]), bytes_id([b"a", b"bc"]), bytes_id([b"abc"]), bytes_id([b"abc", b""])}) == 4


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"x": object()})
