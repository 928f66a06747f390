"""The databases that the product uses."""

from __future__ import annotations

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import EnvironmentName, PostgresUrl


class DatabaseSettings(Group):
    """Which databases the product uses, and whose record is read there."""

    environment: EnvironmentName = variable(
        "ENVIRONMENT",
        "auto",
        "Whose record is read. `auto`: the simulated market in the embedded database; in another one babylon, feed or "
        "simulated, whichever it holds.",
    )
    url: PostgresUrl | None = variable(
        "DATABASE_URL",
        None,
        "The PostgreSQL database of the environment. Without it an embedded PostgreSQL runs in the home folder.",
        secret=True,
    )
    direct_url: PostgresUrl | None = variable(
        "DIRECT_DATABASE_URL",
        None,
        "The server's own address, where DATABASE_URL leads through a pooler. It is used in its place.",
        secret=True,
    )
    ledger_url: PostgresUrl | None = variable(
        "LEDGER_DATABASE_URL",
        None,
        "The database of our own tables, where DATABASE_URL may only be read. Without it they lie in DATABASE_URL.",
        secret=True,
    )
    dagster_url: PostgresUrl | None = variable(
        "DAGSTER_DATABASE_URL",
        None,
        "The database of Dagster. Without it Dagster uses `<database>_dagster` on the server of our tables.",
        secret=True,
    )
