"""How much of a window was understood: its actions by their names, and trades, if it has any, by the record of them.

An environment adds words as it grows. What a word that nobody knows stands for has no worth; here it shows as a number
with the word's name, so that it is never taken for an action that came to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

#: The least share of trades that are to be found in the environment's own record.
LEAST_LINKED = 0.9
#: Words that a sentence lists.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Understanding:
    """What was understood of a window's steps.

    Attributes:
        actions, recognised: steps, and those of them of which no word is unknown.
        trades: steps that traded and were not refused; `recognised_trades` those without an unknown word, `linked`
            those whose trade is in the environment's own record, `valued` those whose worth is known, `pending` those
            whose worth is still to come.
        words: how many steps have which unknown word, most first.
        tells_trades: whether the environment says which of its steps are trades; else they are in no count.
    """

    actions: int
    recognised: int
    trades: int
    recognised_trades: int
    linked: int
    valued: int
    pending: int
    words: Mapping[str, int]
    tells_trades: bool = True

    @property
    def share(self) -> float:
        """The lesser of the shares of the actions, and of the trades, that have no unknown word; 1 without any."""
        shares = (self.recognised, self.actions), (self.recognised_trades, self.trades)
        return min((part / whole for part, whole in shares if whole), default=1.0)

    @property
    def counts(self) -> dict[str, int]:
        """The counts by name."""
        trades = ("trades", "linked", "valued", "pending") if self.tells_trades else ()
        return {name: getattr(self, name) for name in ("actions", "recognised", *trades)}

    def list_words(self) -> str:
        """The unknown words with their counts; empty without any."""
        listed = [f"{word} ({count})" for word, count in list(self.words.items())[:SHOWN]]
        more = len(self.words) - SHOWN
        return ", ".join(listed) + (f" and {more} more" if more > 0 else "")

    def fault(self, least: float) -> str | None:
        """Why the window may not go on where at least this share is to be understood; None where it may."""
        if self.share >= least:
            return None
        trades = f" and {self.trades - self.recognised_trades} of {self.trades} trades" if self.tells_trades else ""
        return (
            f"{self.actions - self.recognised} of {self.actions} actions{trades} have words that are not known: "
            f"{self.list_words()}; install a version that knows them, or lower LEAST_UNDERSTOOD"
        )

    def lost_trades(self) -> str | None:
        """That too many trades are not in the environment's own record, so that their worth is unknown; else None."""
        if self.linked >= LEAST_LINKED * self.trades:
            return None
        return (
            f"{self.trades - self.linked} of {self.trades} trades are not in the environment's own record; "
            "check that it is written in UTC, and that this role reads all of it"
        )


def understand(steps: pd.DataFrame, valued: pd.DataFrame) -> Understanding:
    """Count what was understood of a window's steps.

    Args:
        steps: a row per step.
        valued: on their index, as of `Environment.value_steps`. Of an environment that says neither `kind` nor `word`
            every action is recognised, and trades are not told from other actions.
    """
    nothing = pd.Series(None, index=steps.index, dtype="object")
    words = valued.get("word", nothing)
    kind = valued.get("kind", nothing)
    trades = (kind == "trade") & ~valued["state"].isin(["invalid", "no_trade"])
    counts = words.dropna().value_counts()
    return Understanding(
        actions=len(steps),
        recognised=int(words.isna().sum()),
        trades=int(trades.sum()),
        recognised_trades=int((trades & words.isna()).sum()),
        linked=int((valued.get("linked", nothing)[trades] == True).sum()),  # noqa: E712
        valued=int((valued["state"][trades] == "final").sum()),
        pending=int((valued["state"][trades] == "pending").sum()),
        tells_trades="kind" in valued,
        words={str(word): int(count) for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))},
    )
