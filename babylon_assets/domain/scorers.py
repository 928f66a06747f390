"""Scorers that a user adds: loaded by their import paths, and held to what a scorer promises.

    @scorer("patience", version="1")
    def patience(steps: pd.DataFrame) -> pd.Series:
        return (steps["state"] == "no_trade").astype("float64")

`SCORERS=my_module:patience` names it, `REWARD_WEIGHTS=outcome=1.0,patience=0.05` gives it a weight. What scorers are,
and those that are always there, is in `domain.rewards`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from babylon_assets.domain.errors import SettingsError, explain_failure
from babylon_assets.domain.frames import STEP_COLUMNS
from babylon_assets.domain.rewards import KEY_COLUMNS, SCORERS, Scorer
from babylon_assets.domain.step_texts import TEXT_COLUMNS, needs_texts

#: Names that a scorer may not have: they are columns of the scores, or scorers of the product.
RESERVED = frozenset(
    {
        *SCORERS,
        *KEY_COLUMNS,
        *STEP_COLUMNS,
        *TEXT_COLUMNS,
        "state",
        "worth",
        "reward",
        "final",
        "ruler",
        "feedback",
        "comments",
        "entry",
        "exit",
    }
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class FunctionScorer:
    """A function from steps to numbers, with the name and the version that its scores are kept under."""

    name: str
    version: str
    function: Callable[[pd.DataFrame], Any]
    texts: bool = False

    def score(self, steps: pd.DataFrame) -> Any:
        return self.function(steps)


def scorer(
    name: str, version: str, *, texts: bool = False
) -> Callable[[Callable[[pd.DataFrame], Any]], FunctionScorer]:
    """Make a scorer of a function that gives each step a number, NaN where it cannot say yet.

    The steps are a frame with `frames.STEP_COLUMNS`, the environment's own columns, and `worth` and `state` as
    `Environment.value_steps` says them. With `texts`, they also have `prompt`, `answer` and `reasoning`: what the
    step's call was asked, what it answered, and what it thought; None where a step has no call.
    """
    return lambda function: FunctionScorer(name, version, function, texts)


def load_scorers(paths: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, Scorer]:
    """The scorers at these import paths, `package.module:name`, by name.

    Raises:
        SettingsError: one cannot be imported, is no scorer, or has a name that is taken.
    """
    loaded: dict[str, Scorer] = {}
    taken = RESERVED.union(reserved)
    for path in paths:
        added = _loaded(path, taken)
        if added.name in loaded:
            raise SettingsError(f"SCORERS has two scorers with the name {added.name!r}; give {path} another name")
        loaded[added.name] = added
    return loaded


@dataclass(frozen=True)
class _Held:
    """A user's scorer, whose results are looked at before anyone uses them."""

    path: str
    scorer: Scorer

    @property
    def name(self) -> str:
        return self.scorer.name

    @property
    def version(self) -> str:
        return self.scorer.version

    @property
    def texts(self) -> bool:
        return needs_texts(self.scorer)

    def score(self, steps: pd.DataFrame) -> pd.Series[Any]:
        """As the user's. It gets the frame copied on write, so that it cannot change what others see.

        Raises:
            SettingsError: it failed, or did not give a number for each step.
        """
        try:
            values = self.scorer.score(steps.copy(deep=False))
        except Exception as error:
            raise self._wrong(f"failed: {explain_failure(error)}") from error
        numbers = self._numbers(values)
        if numbers.shape != (len(steps),):
            raise self._wrong(f"gave {numbers.size} numbers for {len(steps)} steps")
        if np.isinf(numbers).any():
            raise self._wrong("gave a number that is not finite; NaN is for what is not known")
        return pd.Series(numbers, index=steps.index)

    def _numbers(self, values: Any) -> np.ndarray[Any, Any]:
        try:
            if isinstance(values, pd.Series):
                return values.to_numpy(dtype="float64", na_value=np.nan)
            return np.asarray(values, dtype="float64")
        except (TypeError, ValueError) as error:
            raise self._wrong(f"gave what is not numbers ({error})") from error

    def _wrong(self, what: str) -> SettingsError:
        return SettingsError(f"the scorer {self.name!r} ({self.path}) {what}; correct it, or take it out of SCORERS")


def _loaded(path: str, taken: frozenset[str]) -> Scorer:
    module, _, attribute = path.partition(":")
    try:
        member: Any = importlib.import_module(module)
        for part in attribute.split("."):
            member = getattr(member, part)
    except Exception as error:
        raise SettingsError(
            f"SCORERS names {path!r}, which cannot be imported ({type(error).__name__}: {error}); install its package, "
            "put its folder on PYTHONPATH, or correct the path"
        ) from error
    name, version = getattr(member, "name", None), getattr(member, "version", None)
    if not isinstance(name, str) or not isinstance(version, str) or not version or not hasattr(member, "score"):
        raise SettingsError(
            f"{path} of SCORERS is no scorer: it needs a name and a version, both text, and a function `score`; "
            "decorate a function with babylon_assets.domain.scorers.scorer"
        )
    if not _NAME.fullmatch(name) or name in taken:
        raise SettingsError(
            f"{path} of SCORERS has the name {name!r}, which is taken or has other characters than a-z, 0-9 and _; "
            "give it another name"
        )
    return _Held(path, member)
