"""A user's scorers are loaded by their paths, and held to a number per step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from babylon_assets.domain import rewards
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.scorers import load_scorers
from tests.domain.test_rewards import valued

MODULE = """
import numpy as np
import pandas as pd
from babylon_assets.domain.scorers import scorer

good = scorer("good", "3")(lambda steps: steps["step"] * 0.5)
same_name = scorer("good", "1")(lambda steps: steps["step"])
as_list = scorer("as_list", "1")(lambda steps: [None] * len(steps))
short = scorer("short", "1")(lambda steps: [1.0])
words = scorer("words", "1")(lambda steps: ["high"] * len(steps))
boundless = scorer("boundless", "1")(lambda steps: np.full(len(steps), np.inf))
broken = scorer("broken", "1")(lambda steps: steps["no such column"])
taken = scorer("outcome", "1")(lambda steps: steps["step"])
odd = scorer("Not A Name", "1")(lambda steps: steps["step"])
nameless = lambda steps: steps["step"]

@scorer("writer", "1")
def writer(steps):
    steps["worth"] = 9.0
    return steps["worth"]

class Whole:
    name, version = "whole", "2"
    def score(self, steps):
        return pd.Series(1, index=steps.index)

whole = Whole()
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "scorers_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("scorers_of_mine", None)


def paths(*names: str) -> list[str]:
    return [f"scorers_of_mine:{name}" for name in names]


def test_they_are_weighted_beside_the_products_own() -> None:
    added = load_scorers(paths("good", "whole"))
    steps = valued({"worth": 0.2, "state": "final"}, {"worth": 0.4, "state": "final"})
    weights = {"outcome": 1.0, "good": 2.0, "whole": 0.1}
    scored = rewards.score_steps(steps, weights, added=added)
    assert scored["reward"].tolist() == pytest.approx([0.2 + 0.1, 0.4 + 1.0 + 0.1])
    assert rewards.versions(weights, added) == {"outcome": "1", "good": "3", "whole": "2"}


def test_what_it_does_not_know_is_not_known_in_the_sum() -> None:
    scored = rewards.score_steps(valued({}), {"outcome": 1.0, "as_list": 0.5}, added=load_scorers(paths("as_list")))
    assert scored[["as_list", "reward"]].isna().all(axis=None)


def test_it_cannot_change_what_others_see() -> None:
    steps = valued({"worth": 0.2, "state": "final"})
    weights = {"writer": 1.0, "outcome": 1.0}
    scored = rewards.score_steps(steps, weights, added=load_scorers(paths("writer")))
    assert (scored["writer"].tolist(), scored["outcome"].tolist(), steps["worth"].tolist()) == ([9.0], [0.2], [0.2])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("short", "gave 1 numbers for 2 steps"),
        ("words", "not numbers"),
        ("boundless", "not finite"),
        ("broken", "failed: KeyError: 'no such column'"),
    ],
)
def test_what_is_not_a_number_per_step_is_refused_with_name_path_and_remedy(name: str, told: str) -> None:
    added = load_scorers(paths(name))
    with pytest.raises(SettingsError, match=rf"'{name}' \(scorers_of_mine:{name}\).*take it out of SCORERS") as refused:
        rewards.score_steps(valued({}, {}), {name: 1.0}, added=added)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("no_such_module:x", "cannot be imported (ModuleNotFoundError"),
        ("scorers_of_mine:absent", "cannot be imported (AttributeError"),
        ("scorers_of_mine:nameless", "is no scorer"),
        ("scorers_of_mine:taken", "'outcome', which is taken"),
        ("scorers_of_mine:odd", "'Not A Name', which is taken or has other characters"),
    ],
)
def test_what_cannot_be_loaded_says_why(path: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_scorers([path])
    assert told in str(refused.value)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="two scorers with the name 'good'"):
        load_scorers(paths("good", "same_name"))


def test_a_weight_without_a_scorer_says_what_there_is() -> None:
    with pytest.raises(SettingsError, match=r"no scorer: patience\. Choose among outcome, format, good, set"):
        rewards.scorers_of({"patience": 1.0}, added=load_scorers(paths("good")))


def test_scores_made_elsewhere_stay_on_their_steps() -> None:
    steps = valued({}, {}, {}).iloc[[2, 0]]
    made = rewards.JudgeScorer("ruler", "1", pd.Series({0: 0.1, 1: 0.2}))
    assert np.array_equal(made.score(steps), [np.nan, 0.1], equal_nan=True)
