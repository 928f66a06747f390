"""Writes that the game's database does not allow, or has no place for, as an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import errors

from babylon_assets.domain.errors import SourceError


@contextmanager
def explain_refusal(remedy: str) -> Iterator[None]:
    """Turn a refused statement of the block into a SourceError; `remedy` says what to grant, or what to switch off.

    Raises:
        SourceError: the game lacks the table or a column, or the role may not write there.
    """
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise SourceError(f"the game has no such table or column: {error.diag.message_primary}") from None
    except errors.InsufficientPrivilege as error:
        raise SourceError(f"{error.diag.message_primary}; {remedy}") from None
