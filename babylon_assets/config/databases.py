"""The databases that the product uses."""

from __future__ import annotations

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import PostgresUrl


class DatabaseSettings(Group):
    """Which databases the product uses."""

    url: PostgresUrl | None = variable(
        "DATABASE_URL", None, "The game's PostgreSQL; absent: an embedded one in the home folder.", secret=True
    )
    dagster_url: PostgresUrl | None = variable(
        "DAGSTER_DATABASE_URL",
        None,
        "Dagster's own database; absent: `<database>_dagster` on the same server.",
        secret=True,
    )
