"""What became of a checkpoint, in words: the one table that the site, the commands, the report and Dagster's UI show.

A state says what a checkpoint is now, a decision what was done with it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SERVED: Final = "served"
SERVED_BEFORE: Final = "served before"
PASSED: Final = "passed"
REJECTED: Final = "rejected"
ROLLED_BACK: Final = "rolled back"
NO_VERDICT: Final = "no verdict"
ON_A_BRANCH: Final = "branch"
BASE_MODEL: Final = "base model"

#: Every state with its meaning, the best known first.
STATES: Mapping[str, str] = {
    SERVED: "The newest promotion of its chain put it in place.",
    SERVED_BEFORE: "It was promoted once, and the chain went on from it.",
    PASSED: "The gate let it pass, and it was not promoted.",
    REJECTED: "The gate rejected it.",
    ROLLED_BACK: "The chain went back to an earlier checkpoint, or goes on from another one.",
    NO_VERDICT: "The gate said nothing of it yet.",
    ON_A_BRANCH: "It lies on a branch, and was never served.",
    BASE_MODEL: "The chain begins with it.",
}

#: The decisions on a window's checkpoint are this one, `REJECTED` and `ROLLED_BACK`.
PROMOTED: Final = "promoted"
#: What the kept reason of a rejection begins with.
_REFUSED = "refused"


def state_off_the_line(reason: str) -> str:
    """The state of a checkpoint that its chain does not go on from, by the reason that the ledger keeps."""
    return REJECTED if reason.startswith(_REFUSED) else ROLLED_BACK


def explain_end(reason: str) -> str:
    """That reason in the words of the states, such as `rejected: it is worse`."""
    return REJECTED + reason.removeprefix(_REFUSED) if reason.startswith(_REFUSED) else reason
