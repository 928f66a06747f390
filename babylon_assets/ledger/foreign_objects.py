"""What another role has made where tables of ours, or of Dagster's, lie: our sessions would run that role's code.

Whoever owns a table decides what runs when a row is written or read: triggers, rules, defaults, policies and the
expressions of indexes are run as whoever writes, which is us. A role with CREATE on the schema may make a table before
we do. Trusted are this session's role, roles that were granted to it, and superusers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, LiteralString

from babylon_assets.domain.errors import SettingsError

#: Parts of a table are what is dropped with it. That a superuser counts as a member of every role is not looked at:
#: only what was granted counts. The parameters are of the form that psycopg and psycopg2 have alike.
_FOREIGN: LiteralString = """
    WITH RECURSIVE granted AS (
        SELECT oid FROM pg_roles WHERE rolname = current_user
        UNION SELECT m.roleid FROM pg_auth_members m JOIN granted g ON m.member = g.oid),
    held AS (
        SELECT c.oid, c.relname::text AS name, c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = ANY(%(tables)s)),
    parts AS (
        SELECT 'pg_class'::regclass::oid AS class, oid AS part, name FROM held
        UNION SELECT d.classid, d.objid, h.name FROM pg_depend d JOIN held h ON h.oid = d.refobjid
              WHERE d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')),
    used AS (
        SELECT 'of the table ' || p.name AS by, d.refclassid AS class, d.refobjid AS object
            FROM parts p JOIN pg_depend d ON d.classid = p.class AND d.objid = p.part
        UNION SELECT 'in the schema', 'pg_proc'::regclass, f.oid
            FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE n.nspname = %(schema)s AND %(routines)s
        UNION SELECT 'in the schema', 'pg_operator'::regclass, o.oid
            FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
            WHERE n.nspname = %(schema)s AND %(routines)s),
    made AS (
        SELECT 'the table ' || name AS what, relowner AS owner FROM held
        UNION SELECT 'the function ' || f.proname || ' ' || u.by, f.proowner
            FROM used u JOIN pg_proc f ON u.class = 'pg_proc'::regclass AND f.oid = u.object
        UNION SELECT 'the operator ' || o.oprname || ' ' || u.by, o.oprowner
            FROM used u JOIN pg_operator o ON u.class = 'pg_operator'::regclass AND o.oid = u.object
        UNION SELECT 'the type ' || t.typname || ' ' || u.by, t.typowner
            FROM used u JOIN pg_type t ON u.class = 'pg_type'::regclass AND t.oid = u.object)
    SELECT made.what, r.rolname, current_user FROM made JOIN pg_roles r ON r.oid = made.owner
    WHERE NOT r.rolsuper AND r.oid NOT IN (SELECT oid FROM granted) ORDER BY 1 LIMIT 1"""


def refuse_foreign(
    execute: Callable[[LiteralString, dict[str, Any]], Any], schema: str, tables: Sequence[str], *, routines: bool
) -> None:
    """Make sure that no other role decides what these tables of a schema, where they are there, run.

    Args:
        execute: runs a statement of the driver's and gives what its one row is fetched from.
        routines: refuse every function and operator that another role made in the schema, too; for sessions that look
            names up there, or call what lies there.

    Raises:
        SettingsError: another role made one of them, or something that one of them calls.
    """
    given = {"schema": schema, "tables": list(tables), "routines": routines}
    row = execute(_FOREIGN, given).fetchone()
    if row is not None:
        what, owner, own = row
        raise SettingsError(
            f"in the schema {schema} the role {owner!r} has made {what}, and our sessions would run that role's code; "
            f'have it dropped, or given to the role "{own}" with ALTER ... OWNER TO, then try again'
        )
