"""The error tree that the module draws is the one that exists."""

from __future__ import annotations

import inspect
import re

from babylon_assets.domain import errors


def _classes() -> list[type[object]]:
    return [item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__]


def test_the_drawing_names_every_error_under_its_parent() -> None:
    drawn: dict[str, str] = {}
    above: dict[int, str] = {0: "BabylonError"}
    for line in (errors.__doc__ or "").splitlines():
        branch = re.match(r" {4}([│ ]*)[├└]── (\w+)", line)
        if branch is not None:
            depth = len(branch[1]) // 4
            drawn[branch[2]], above[depth + 1] = above[depth], branch[2]
    real = {item.__name__: item.__bases__[0].__name__ for item in _classes() if item is not errors.BabylonError}
    assert drawn == real


def test_a_failure_of_ours_is_a_sentence_and_any_other_says_what_it_is() -> None:
    assert errors.explain_failure(errors.SettingsError("REWARD_WEIGHTS names no scorer")) == (
        "REWARD_WEIGHTS names no scorer"
    )
    assert errors.explain_failure(KeyError("x")) == "KeyError: 'x'"


def test_every_error_is_either_permanent_or_transient() -> None:
    for item in _classes():
        if item is not errors.BabylonError:
            permanent, transient = issubclass(item, errors.PermanentError), issubclass(item, errors.TransientError)
            assert permanent != transient
