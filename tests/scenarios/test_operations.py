"""What docs/operating.md tells operators to type, on PostgreSQL over TCP: the role, the dump and the restore."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from babylon_assets.environments.babylon.game_tables import create_game_tables
from babylon_assets.ledger.addresses import Address
from tests.domain.rows import WINDOW
from tests.scenarios.conftest import Environment, babylon_here
from tests.scenarios.test_real_game import write_full_rows

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
PASSWORD = "role's / own"


def documented(block: str) -> bytes:
    """The SQL of a marked block of docs/operating.md."""
    [found] = re.findall(rf"<!-- {block} -->\n```sql\n(.*?)```", OPERATING.read_text(), flags=re.DOTALL)
    return str(found).encode()


@pytest.fixture
def address(system_postgres: Address) -> Iterator[Address]:
    """A game's database under the role that docs/operating.md makes, by the very lines that stand there."""
    admin = system_postgres.conninfo()
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute("CREATE DATABASE babylon")
    with psycopg.connect(system_postgres.at("babylon").conninfo()) as conn:
        create_game_tables(conn)
        write_full_rows(conn)
        conn.execute(documented("role"))
        conn.execute(sql.SQL("ALTER ROLE babylon_training PASSWORD {}").format(PASSWORD))
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute("CREATE DATABASE babylon_dagster OWNER babylon_training")
    yield Address({**system_postgres.at("babylon").parameters, "user": "babylon_training", "password": PASSWORD})
    with psycopg.connect(admin, autocommit=True) as conn:
        for name in ("babylon", "babylon_dagster"):
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        conn.execute("DROP ROLE babylon_training")


@pytest.fixture
def environment(
    address: Address, tmp_path: Path, tiny_base: Path, environment_of: Callable[..., Environment]
) -> Environment:
    settings = {"DATABASE_URL": address.url(), "DAGSTER_DATABASE_URL": address.at("babylon_dagster").url()}
    return environment_of(tmp_path / "home", **settings, BASE_MODEL=str(tiny_base), GRADIENT_TOKENS="4096")


def tool(address: Address, name: str, *arguments: str) -> str:
    """One of PostgreSQL's own programs against the database, as the role; what it printed."""
    [*_, newest] = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    place = {key: value for key, value in address.parameters.items() if key != "password"}
    login = f"--dbname={Address(place).conninfo()}"
    environment = {**os.environ, "PGPASSWORD": address.parameters["password"]}
    done = subprocess.run(
        [str(newest), login, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_role_trains_writes_nothing_into_the_game_and_its_dump_is_restored(
    address: Address, system_postgres: Address, environment: Environment, tmp_path: Path
) -> None:
    assert f"{WINDOW}  trained" in babylon_here(environment, "train", WINDOW)
    refuse_to_write_into_the_game(address)
    before = [json.loads(babylon_here(environment, command, "--json")) for command in ("chains", "windows")]
    assert [made["policy"] for made in before[0]] == ["babylon-agent@0", "babylon-agent@1"]

    dump, saved, home = tmp_path / "babylon.dump", tmp_path / "home.tar.gz", Path(environment["BABYLON_HOME"])
    tool(address, "pg_dump", "--format=custom", "--schema=babylon_training", f"--file={dump}")
    exclude = ("--exclude=./postgres", "--exclude=./logs")
    tar = ["tar", "--gzip", f"--file={saved}", f"--directory={home}"]
    subprocess.run([*tar, *exclude, "--create", "."], check=True)

    shutil.rmtree(home / "art")
    with psycopg.connect(system_postgres.at("babylon").conninfo()) as conn:
        conn.execute(documented("aside"))
    tool(address, "pg_restore", "--no-owner", "--exit-on-error", "--schema=babylon_training", str(dump))
    subprocess.run([*tar, "--extract"], check=True)

    babylon_here(environment, "migrate")
    after = [json.loads(babylon_here(environment, command, "--json")) for command in ("chains", "windows")]
    assert after == before
    assert "the same, bit for bit" in babylon_here(environment, "reproduce", "babylon-agent@1")
    refuse_to_rewrite_promotions(address)


def refuse_to_write_into_the_game(address: Address) -> None:
    for forbidden in (
        """UPDATE public.trajectories SET "finalPnL" = 0""",
        """INSERT INTO public."Market" (id) VALUES ('m9')""",
        "DROP TABLE public.trajectories",
        "CREATE TABLE public.ours (id int)",
        "CREATE SCHEMA another",
        "CREATE ROLE another",
    ):
        with psycopg.connect(address.conninfo()) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(forbidden.encode())


def refuse_to_rewrite_promotions(address: Address) -> None:
    """The triggers came back with the tables."""
    with psycopg.connect(address.conninfo()) as conn, pytest.raises(psycopg.errors.RestrictViolation):
        conn.execute(
            "INSERT INTO babylon_training.promotions (chain, kind, to_id, promoted_by, why) "
            "SELECT chain, 'promotion', id, 'ada', 'better' FROM babylon_training.model_checkpoints LIMIT 1"
        )
        conn.execute("DELETE FROM babylon_training.promotions")
