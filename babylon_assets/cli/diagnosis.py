"""What `babylon doctor` finds: a look at one thing, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from babylon_assets.domain.errors import BabylonError, TransientError
from babylon_assets.ledger.sqlstates import named_error


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One check: what was found, and what to do when it is not well (empty when it is).

    Attributes:
        sure: False where only a first use will tell; then the remedy is what helps to tell it earlier.
    """

    name: str
    found: str
    remedy: str = ""
    sure: bool = True

    @property
    def wrong(self) -> bool:
        """Whether there is something to mend."""
        return self.sure and bool(self.remedy)


def diagnose_by(name: str, look: Callable[[], str | Diagnosis]) -> Diagnosis:
    """A finding of a look that raises our own errors; their message ends with what to do."""
    try:
        found = look()
        return found if isinstance(found, Diagnosis) else Diagnosis(name, found)
    except (BabylonError, psycopg.Error) as error:
        return refuse(name, named_error(error) or error)


def refuse(name: str, error: Exception) -> Diagnosis:
    """A finding of a look that ended in an error, whose message says what to do."""
    return Diagnosis(name, "no answer" if isinstance(error, TransientError) else "not as it should be", str(error))
