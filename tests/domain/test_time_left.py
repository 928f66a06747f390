"""What is said of the rest of a long run is what can be known of it."""

from __future__ import annotations

import pytest

from babylon_assets.domain.time_left import describe_time_left


@pytest.mark.parametrize(
    ("done", "seconds", "since_last", "said"),
    [
        (1, 0.0, 100.0, ""),
        (4, 9.0, 0.0, "about 18 s left"),
        (4, 9.0, 2.0, "about 16 s left"),
        (4, 9.0, 2880.0, "this window has taken 48 min, those before 3 s each"),
        (4, 3600.0, 0.0, "about 2.0 h left"),
        (10, 9.0, 5.0, ""),
    ],
)
def test_the_rest_is_estimated_by_what_was_done(done: int, seconds: float, since_last: float, said: str) -> None:
    assert describe_time_left(done, 10, seconds, since_last) == said
