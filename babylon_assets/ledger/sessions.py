"""Sessions with PostgreSQL: what each begins with, and what a refusal means in our words."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any

import psycopg

from babylon_assets.config.settings import HIDDEN
from babylon_assets.domain.errors import BabylonError, DatabaseUnavailable, SettingsError
from babylon_assets.ledger.addresses import Address, remedy
from babylon_assets.ledger.poolers import is_behind_pooler, pools_transactions

CONNECT_SECONDS = 10
Connection = psycopg.Connection[Any]

#: What every session begins with, Dagster's too, whatever server, database or role are set to. With no other schema
#: in the search path, an operator or a function that another role made in `public` is not taken for PostgreSQL's own.
#: The others say how values are written as text, of which fingerprints are made, and what a transaction sees after it
#: waited for a lock.
SESSION_OPTIONS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "TimeZone": "UTC",
        "search_path": "pg_catalog",
        "DateStyle": "ISO,MDY",
        "IntervalStyle": "postgres",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "standard_conforming_strings": "on",
        "default_transaction_isolation": r"read\ committed",
    }.items()
)

# What a person must put right. Other words of these messages also stand in those of a server that is only busy:
# "canceling authentication due to timeout", "slots are reserved for roles with the SUPERUSER attribute".
_REFUSED_LOGIN = re.compile(
    r"authentication failed|no password supplied|empty password|no pg_hba\.conf entry|permission denied for database"
    r"|role \".*\" (does not exist|is not permitted to log in)|server requested .* authentication"
    r"|authentication method .* not supported"
)
# What libpq says of a connection whose TLS cannot come about, however often it is tried.
_TLS = re.compile(
    r"certificate|private key|SSL was required|invalid ssl|weak sslmode|channel binding|unknown ca\b|handshake failure"
    r"|unsupported protocol|host name must be specified"
)
# What libpq says of an address that it cannot use before it asks any server.
_UNUSABLE = re.compile(
    r"invalid port number|definition of service|service file .* not found|invalid (integer|\w+) value"
    r"|could not match \d+ (host|port)"
)
_POOLER = re.compile(r"unsupported startup parameter|pgbouncer", re.IGNORECASE)
#: Addresses that were found to lead to sessions that stay.
_DIRECT: set[str] = set()
_NO_DATABASE = re.compile(r"database \".*\" does not exist")


class _Connection(psycopg.Connection[Any]):
    """As psycopg's, but a `with` block that loses the server ends in DatabaseUnavailable, which callers try again."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        except psycopg.OperationalError as lost:  # the commit itself: whether it was done is not known
            raise DatabaseUnavailable(f"the connection to PostgreSQL was lost at the commit: {lost}") from lost
        if isinstance(error, psycopg.OperationalError) and self.broken:
            raise DatabaseUnavailable(f"the connection to PostgreSQL was lost: {error}") from error


def connect(address: Address, *, autocommit: bool) -> Connection:
    """A connection to the server itself; that no pooler changes sessions in between is asked once of an address.

    Raises:
        SettingsError, DatabaseUnavailable: as of `Database.connect`.
    """
    if address.conninfo() not in _DIRECT:
        with _open(address, autocommit=True) as conn:
            if is_behind_pooler(conn):
                _refuse_pooled_transactions(address)
        _DIRECT.add(address.conninfo())
    return _open(address, autocommit=autocommit)


def _refuse_pooled_transactions(address: Address) -> None:
    if pools_transactions(lambda: _open(address, autocommit=True)):
        reason = "leads through a pooler in transaction mode, which would give the lock of one training to two"
        raise SettingsError(f"{address.place} {reason}; {_without_pooler(address)}")
    with _open(address, autocommit=True) as conn:
        if conn.execute("SHOW search_path").fetchone() != ("pg_catalog",):
            reason = "leads through a pooler that drops the options of a session"
            raise SettingsError(f"{address.place} {reason}; {_without_pooler(address)}")


def _without_pooler(address: Address) -> str:
    return f"{remedy(address.variable)}, or let the pooler keep sessions"


def only_reads(conn: psycopg.Connection[Any]) -> bool:
    """Whether the server refuses every write of this session, as a standby does."""
    row = conn.execute("SHOW transaction_read_only").fetchone()
    return row is not None and row[0] == "on"


def _open(address: Address, *, autocommit: bool) -> Connection:
    options = f"{address.parameters.get('options', '')} {SESSION_OPTIONS}".strip()
    more = {"options": options, "client_encoding": "utf8"}
    for name, value in (("connect_timeout", str(CONNECT_SECONDS)), ("application_name", "babylon")):
        more[name] = address.parameters.get(name, value)
    try:
        return _Connection.connect(address.conninfo(**more), autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise explained(address, error) from None
    except UnicodeError:  # of looking up a name such as `a..b`
        reason = "the host's name has an empty part, or one of more than 63 characters"
        raise SettingsError(f"{address.place}: {reason}; correct {address.variable}") from None


def explained(address: Address, error: psycopg.OperationalError) -> BabylonError:
    """The refusal in our words. libpq gives no code for a failed login, hence the look at its message."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    plain = "; ".join(line for line in lines if line and not line.startswith("Is the server running"))
    password = address.parameters.get("password")
    text = plain.replace(password, HIDDEN) if password else plain  # what it is, is read in the plain text
    if _POOLER.search(plain):
        return SettingsError(f"{address.place} leads through a pooler: {text}; {_without_pooler(address)}")
    if _NO_DATABASE.search(plain):
        return SettingsError(f"{address.place}: {text}; create the database or correct {address.variable}")
    if _REFUSED_LOGIN.search(plain):
        return SettingsError(f"{address.place}: {text}; correct user and password in {address.variable}")
    if _TLS.search(plain):
        return SettingsError(f"{address.place}: {text}; correct sslmode and sslrootcert in {address.variable}")
    if _UNUSABLE.search(plain):
        return SettingsError(f"{address.place}: {text}; correct {address.variable}")
    return DatabaseUnavailable(
        f"{address.place} does not answer: {text}; start PostgreSQL there or correct {address.variable}"
    )
