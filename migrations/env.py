"""Alembic's entry: runs the migrations on the connection that `babylon migrate` hands over, inside its transaction.

Only our own schema is known here. There is no URL and no autogeneration: run `babylon migrate`.
"""

from __future__ import annotations

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run on a connection that is already locked and checked: type `babylon migrate`")

context.configure(connection=connection, version_table_schema="babylon_training")
context.run_migrations()
