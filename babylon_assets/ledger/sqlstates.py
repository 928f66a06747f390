"""Which errors of PostgreSQL pass by themselves and which a person must put right: one table, by SQLSTATE.

The codes are those of PostgreSQL's appendix "Error Codes". A code is looked up whole, then by its class, the first two
characters. What is in no row is permanent.
"""

from __future__ import annotations

import re
from typing import Any

from babylon_assets.domain.errors import BabylonError, DatabaseUnavailable, PermanentError, SettingsError

#: Try again later.
TRANSIENT = {
    "08": "the connection failed",
    "25P03": "the server ended the connection, which it found idle",
    "25P04": "the server ended a transaction that took long",
    "40000": "the server undid the transaction",
    "40001": "another transaction came in between",
    "40003": "whether the statement was done is not known",
    "40P01": "two transactions waited for each other",
    "53": "the server lacks room, memory or connections",
    "55006": "something else uses it at the moment",
    "55P03": "a lock was not to be had in time",
    "57014": "the statement was cancelled, by a person or by a time limit",
    "57P": "the server was stopped, is starting, or ended the connection",
    "25006": "the server only reads, as a standby does, or the role is set to; `babylon doctor` says which",
    "58": "the server's disk or system failed",
    "HV00N": "the server behind a foreign table does not answer",
}
#: A setting or a right is wrong.
REFUSED = {
    "28": "the server refused the login; correct user and password in DATABASE_URL",
    "3D": "the database does not exist; create it or correct DATABASE_URL",
    "42501": "the role lacks a right; `babylon doctor` says which",
    "42P01": "a table is missing; type: babylon migrate, and `babylon doctor` looks at the environment's",
    "42703": "a column is missing; type: babylon migrate, and `babylon doctor` looks at the environment's",
}


def named_error(error: BaseException) -> BabylonError | None:
    """A database's error, or one that was caused by it, as an error of the product; None for any other.

    The sentence holds the server's own first line; its detail, which may quote a row, is left out.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BabylonError):
            return cause
        driver_error = getattr(cause, "orig", None) or cause  # SQLAlchemy keeps the driver's error in `orig`
        if type(driver_error).__module__.startswith("psycopg"):
            return _named(driver_error)
        cause = cause.__cause__
    return None


def _named(error: Any) -> BabylonError:
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    message = getattr(getattr(error, "diag", None), "message_primary", None) or _first_line(error)
    if sqlstate is None:  # no server answered: psycopg's errors of use, such as a closed cursor, are not the server's
        kind = DatabaseUnavailable if "OperationalError" in _names(error) else PermanentError
        return kind(f"PostgreSQL: {message}" + ("; try again later" if kind is DatabaseUnavailable else ""))
    if why := _lookup(TRANSIENT, sqlstate):
        return DatabaseUnavailable(f"PostgreSQL: {message} ({sqlstate}): {why}; try again later")
    if why := _lookup(REFUSED, sqlstate):
        return SettingsError(f"PostgreSQL: {message} ({sqlstate}): {why}")
    return PermanentError(f"PostgreSQL refused it: {message} ({sqlstate})")


def _lookup(table: dict[str, str], sqlstate: str) -> str | None:
    return next((table[sqlstate[:length]] for length in (5, 3, 2) if sqlstate[:length] in table), None)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _first_line(error: BaseException) -> str:
    """The first line of an error that no server sent; a password that stands in a URL in it is hidden."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"://\S+", "://***", line)
