"""Database addresses: what a person writes in DATABASE_URL, made into what psycopg and SQLAlchemy each need.

Nothing connects here. A password enters through `parse_address` and leaves through URLs only, never through an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from babylon_assets.domain.errors import SettingsError

# What Prisma and node-postgres, which the games use, add to their own URLs and libpq refuses to read.
_CLIENTS_ONLY = frozenset(
    {
        "connection_limit",
        "pool_timeout",
        "socket_timeout",
        "statement_cache_size",
        "max_idle_connection_lifetime",
        "max_connection_lifetime",
        "schema",
        "pgbouncer",
        "sslaccept",
        "sslidentity",
        "sslpassword",
        "uselibpqcompat",
    }
)

_FORM = "postgresql://user:password@host:5432/database"
_AMBIGUOUS = (
    "cannot be read: user or password hold a character that must be written as a %-code; "
    "write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25"
)
LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A database as libpq parameters (host, port, user, password, dbname, sslmode, ...); the repr shows no password."""

    parameters: dict[str, str] = field(repr=False)
    #: The setting that a person corrects where the address is wrong.
    variable: str = field(default="DATABASE_URL", compare=False)

    @property
    def database(self) -> str:
        """The database's name."""
        return self.parameters["dbname"]

    @property
    def place(self) -> str:
        """Where it is, fit to be printed: `host:port/database`."""
        host = self.parameters.get("host") or self.parameters.get("hostaddr") or "localhost"
        port = self.parameters.get("port", "")
        return f"{host}{':' if port else ''}{port}/{self.database}"

    def at(self, database: str) -> Address:
        """The same server and user, another database."""
        return Address({**self.parameters, "dbname": database}, self.variable)

    def conninfo(self, **more: str) -> str:
        """A libpq connection string; `more` overrides."""
        return make_conninfo("", **{**self.parameters, **more})

    def url(self, scheme: str = "postgresql") -> str:
        """A URL for libpq, or for SQLAlchemy with a scheme such as `postgresql+psycopg2`.

        Host and port travel in the query, which takes socket folders and several hosts as well.
        """
        user, password = (quote(self.parameters.get(key, ""), safe="") for key in ("user", "password"))
        login = f"{user}:{password}@" if password else f"{user}@" if user else ""
        rest = {key: value for key, value in self.parameters.items() if key not in ("user", "password", "dbname")}
        query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
        return f"{scheme}://{login}/{quote(self.database, safe='')}{query}"


def remedy(variable: str) -> str:
    """What to do about an address that leads through a pooler."""
    if variable == "DATABASE_URL":
        return "set DIRECT_DATABASE_URL to the server's own address (Prisma calls it the direct URL)"
    return f"set {variable} to the server's own address"


def parse_address(url: str, variable: str) -> Address:
    """Read a PostgreSQL URL: `postgres://` and driver suffixes are accepted, Prisma's own parameters left out.

    Raises:
        SettingsError: naming `variable`, when the URL cannot be read, or leads through a transaction pooler.
    """
    if not re.match(r"postgres(ql)?(\+\w+)?://", url):
        raise SettingsError(f"{variable} is not a PostgreSQL URL; write {_FORM}")
    if _is_ambiguous(url):
        raise SettingsError(f"{variable} {_AMBIGUOUS}")
    scheme_free = re.sub(r"^[^:]+", "postgresql", url, count=1)
    try:
        parameters = conninfo_to_dict(_without_prisma(scheme_free, variable))
    except (ProgrammingError, ValueError) as error:
        cut = "@" in url.partition("?")[2]  # the login may go on after the question mark
        raise SettingsError(f"{variable} {_AMBIGUOUS if cut else _why_unreadable(str(error))}") from None
    if not parameters.get("dbname"):
        raise SettingsError(f"{variable} names no database; write {_FORM}")
    known = {key: str(value) for key, value in parameters.items() if value not in (None, "")}
    _refuse_odd_numbers(known, variable)
    return Address(known, variable)


def _why_unreadable(error: str) -> str:
    """What libpq has against an address, for a person."""
    unknown = re.search(r'query parameter: "(\w+)"', error)
    if unknown is not None:
        return f"has the parameter {unknown[1]}, which PostgreSQL does not know; correct its name or leave it out"
    return f"cannot be read; write {_FORM}, with %-codes for special characters in the password"


def _refuse_odd_numbers(parameters: Mapping[str, str], variable: str) -> None:
    """Refuse ports and a timeout that are no numbers."""
    ports = [port for port in parameters.get("port", "").split(",") if port]
    if not all(port.isdecimal() and 0 < int(port) <= LAST_PORT for port in ports):
        raise SettingsError(f"{variable} has a port that is no number from 1 to {LAST_PORT}; write {_FORM}")
    if not re.fullmatch(r"-?\d+", parameters.get("connect_timeout", "0")):
        raise SettingsError(f"{variable} has a connect_timeout that is no whole number of seconds; correct it")


def _is_ambiguous(url: str) -> bool:
    """Whether a part of the login would be taken for a host, a port, a database or a parameter, and so be shown."""
    rest = url.partition("://")[2].partition("?")[0]
    place, _, path = rest.partition("/")
    login, _, hosts = place.rpartition("@")
    is_encoded = "%40" in hosts or (":" not in login and "%3a" in login.lower())  # with what parts user and password
    return is_encoded or "@" in path or "@" in login


def _without_prisma(url: str, variable: str) -> str:
    place, _, asked = url.partition("?")
    query = dict(parse_qsl(asked, keep_blank_values=True))
    if query.get("pgbouncer", "false").lower() == "true":
        raise SettingsError(
            f"{variable} leads through PgBouncer, which breaks the locks that keep two trainings apart; "
            f"{remedy(variable)}"
        )
    if query.get("schema", "public") != "public":
        raise SettingsError(f"{variable} names the schema {query['schema']!r}; the game's tables are read from public")
    kept = {key: value for key, value in query.items() if key not in _CLIENTS_ONLY}
    return f"{place}?{urlencode(kept, quote_via=quote)}" if kept else place
