"""Every way of writing a database's address, and what of it may be seen."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from babylon_assets.domain.errors import SettingsError
from babylon_assets.ledger.addresses import Address, parse_address

PASSWORD = "p@ss/wörd %1?&#:"
QUOTED = "p%40ss%2Fw%C3%B6rd%20%251%3F%26%23%3A"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_scheme_gives_the_same_address(scheme: str) -> None:
    address = parse_address(f"{scheme}://trader:{QUOTED}@db.example:6543/game?sslmode=require", "DATABASE_URL")
    assert address.parameters == {
        "user": "trader",
        "password": PASSWORD,
        "host": "db.example",
        "port": "6543",
        "dbname": "game",
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://trader:{QUOTED}@db.example:6543/game?sslmode=require&application_name=my%20game",
        "postgresql:///game?host=/var/run/my%20socket",
        "postgres://trader@/game?host=a,b&port=1,2",
        "postgresql://[::1]:5432/game",
        "postgresql://db/g%C3%A4me?options=-c%20search_path%3Dx",
    ],
)
def test_both_urls_lead_where_the_given_one_led(url: str) -> None:
    address = parse_address(url, "DATABASE_URL")
    assert conninfo_to_dict(address.url()) == conninfo_to_dict(url.replace("postgres:", "postgresql:"))
    dagster = make_url(address.url("postgresql+psycopg2"))
    options = dagster.get_dialect()().create_connect_args(dagster)[1]
    told = {{"database": "dbname"}.get(key, key): str(value) for key, value in options.items()}
    assert told == address.parameters


def test_what_only_prisma_understands_is_left_out() -> None:
    given = "postgresql://u:p@h/db?schema=public&connection_limit=5&pool_timeout=0&pgbouncer=false&sslmode=prefer"
    assert parse_address(given, "DATABASE_URL") == parse_address("postgresql://u:p@h/db?sslmode=prefer", "X")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:hunter2@h/db", "not a PostgreSQL URL"),
        ("postgresql://user:hunter2/min@h/db", "written as a %-code"),
        ("postgresql://user:12/hunter2@h/db", "written as a %-code"),
        ("postgresql://user:hunter2@min@h/db", "written as a %-code"),
        ("postgresql://user:hunter2?min@h/db", "written as a %-code"),
        ("postgresql://user@hunter2:pw@h/db", "written as a %-code"),
        ("postgresql://user:hunter2%40127.0.0.1:1/db", "written as a %-code"),
        ("postgresql://user%3Ahunter2@h/db", "written as a %-code"),
        ("postgresql://hunter2%40h/db", "written as a %-code"),
        ("postgresql://user:12?hunter2@h/db", "cannot be read"),
        ("postgresql://user:12?hunter2=1@h/db", "written as a %-code"),
        ("postgresql://u:hunter2@h:port/db", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:hunter2@h:70000/db", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:hunter2@h/db?port=port", "has a port that is no number from 1 to 65535"),
        ("postgresql://u:hunter2@h:port/db?nonsense=1", "has the parameter nonsense, which PostgreSQL does not know"),
        ("postgresql://u:hunter2@h/db?connect_timeout=soon", "no whole number of seconds"),
        ("postgresql://u:hunter%2@h/db", "cannot be read"),
        ("postgresql://u:hunter2@[h/db", "cannot be read"),
        ("postgresql://u:hunter2@h", "names no database"),
        ("postgresql://u:hunter2@h/db?pgbouncer=true", "direct URL"),
        ("postgresql://u:hunter2@h/db?schema=game", "'game'"),
    ],
)
def test_what_cannot_work_is_refused_without_the_password(url: str, told: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as refused:
        parse_address(url, "DATABASE_URL")
    assert told in str(refused.value)
    assert "hunter" not in str(refused.value)


def test_the_password_is_in_no_representation() -> None:
    address = parse_address("postgresql://u:hunter2@h:5/db", "DATABASE_URL")
    assert "hunter2" not in repr(address)
    assert address.place == "h:5/db"
    assert address.at("other").place == "h:5/other"
    assert Address({"dbname": "d"}).place == "localhost/d"
