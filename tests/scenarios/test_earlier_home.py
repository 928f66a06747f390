"""A home and its databases, made by the version before the rooms had their names, go on after `babylon migrate`.

`earlier_home.tar.gz` holds what `babylon demo --windows 2 --until 2025-11-05T14:00` left there with `SMALL_GAME` and
a small base model: the home without its server, a plain dump of each database, and `@HOME@` where
a path of the home stood.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from babylon_assets.config.settings import load_settings
from babylon_assets.ledger import checkpoints, datasets, embedded_postgres, windows
from babylon_assets.ledger.database import Database, newest_revision, open_database
from babylon_assets.training.adapters import weights_sha256
from tests.scenarios.conftest import CHECKOUT, SMALL_GAME, Environment, babylon_here
from tests.servers import passable_folder

pytestmark = pytest.mark.slow
ARCHIVE = Path(__file__).with_name("earlier_home.tar.gz")
FIRST, SECOND, NEXT = "2025-11-05T13:00", "2025-11-05T14:00", "2025-11-05T15:00"
CHAIN = "babylon-agent"
#: The dataset that the version of before made of the first window, when the outcomes had come that the second brought.
AGAIN = "2c1543cf368043d41f70f46c66b5f3192521c10a7b404211e621be777504f67b"
#: What must not change when an old window is materialized again.
KEPT = {
    "model_checkpoints": "id, step, parent_id, dataset_id, weights_sha256, path",
    "training_datasets": "id, window_id, created_at",
    "training_jobs": "id, state, checkpoint_id",
    "promotions": "id, from_id, to_id",
    "checkpoint_evaluations": "checkpoint_id, evaluation, version, value",
}


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    """The environment of the home, restored on a server of its own and migrated."""
    home = passable_folder("babylon-earlier-")
    try:
        _restore(home)
        [base] = (home / "base_models").iterdir()
        places = {"BASE_MODEL": str(base), "BABYLON_HOME": str(home), "PATH": str(Path(sys.executable).parent)}
        made = {**SMALL_GAME, **places, "PYTHONPATH": str(CHECKOUT)}
        babylon_here(made, "migrate")
        yield made
    finally:
        embedded_postgres.stop(home / "postgres")
        shutil.rmtree(home)


def _restore(home: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        texts = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    address = embedded_postgres.start(home / "postgres")
    for name, content in texts.items():
        whole = content if name.endswith(".safetensors") else content.replace(b"@HOME@", str(home).encode())
        if name.endswith(".sql"):
            _load(home, address.parameters["host"], name.removesuffix(".sql"), whole)
            continue
        place = home / name.removeprefix("home/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(whole)


def _load(home: Path, host: str, database: str, dump: bytes) -> None:
    psql = [str(embedded_postgres.programs_of(home / "postgres") / "psql"), "-q", "-v", "ON_ERROR_STOP=1"]
    psql += ["-h", host, "-p", embedded_postgres.PORT, "-U", embedded_postgres.SUPERUSER, "-d"]
    subprocess.run([*psql, "postgres", "-c", f'CREATE DATABASE "{database}"'], check=True)
    subprocess.run([*psql, database], input=dump, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def database(environment: Environment) -> Database:
    return open_database(load_settings(environment, env_file=None))


def _kept(conn: psycopg.Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    query = "SELECT {} FROM babylon_training.{} ORDER BY 1, 2"
    return {name: conn.execute(query.format(columns, name).encode()).fetchall() for name, columns in KEPT.items()}


def test_its_windows_are_listed_and_its_datasets_keep_their_ids(environment: Environment, database: Database) -> None:
    assert FIRST in (listed := babylon_here(environment, "windows")) and SECOND in listed
    with database.connect() as conn:
        revision = conn.execute("SELECT version_num FROM babylon_training.alembic_version").fetchone()
        assert revision == (newest_revision(),)
        rows = windows.list_windows(conn)
        assert [(row.window_id, row.status, row.samples) for row in rows][:2] == [
            (FIRST, "trained", 48),
            (SECOND, "trained", 48),
        ]
        for row in rows:
            assert row.dataset_id is not None
            dataset = datasets.load_dataset(conn, row.dataset_id)
            assert (dataset.id, len(dataset.samples)) == (row.dataset_id, row.samples)


def test_its_checkpoints_are_whole(database: Database) -> None:
    with database.connect() as conn:
        _, *trained = checkpoints.chain(conn, CHAIN)
    assert len(trained) >= 2
    assert [weights_sha256(Path(one.path)) for one in trained] == [one.weights_sha256 for one in trained]


def test_an_old_window_again_writes_nothing_new(environment: Environment, database: Database) -> None:
    """The second window: outcomes of the first arrived with the second, so that its data did change."""
    with database.connect() as conn:
        before = _kept(conn)
    babylon_here(environment, "train", SECOND)
    with database.connect() as conn:
        assert _kept(conn) == before


def test_the_next_window_is_played_by_the_old_policy_and_trained_from_the_old_head(
    environment: Environment, database: Database
) -> None:
    with database.connect() as conn:
        old = checkpoints.head(conn, CHAIN)
        assert old is not None
    babylon_here(environment, "demo", "--windows", "1", "--until", NEXT)
    with database.connect() as conn:
        new = checkpoints.by_window(conn, CHAIN, NEXT)
        played = conn.execute(
            "SELECT DISTINCT policy FROM babylon_training.inference_calls WHERE created_at >= ("
            "SELECT min(start_time) FROM babylon_training.raw_trajectories WHERE window_id = %s)",
            [NEXT],
        ).fetchall()
    assert new is not None and (new.parent_id, new.step) == (old.id, old.step + 1)
    assert played == [(f"{CHAIN}@{old.step}",)]


def test_a_window_whose_outcomes_came_later_gets_the_dataset_that_it_would_have_got(
    environment: Environment, database: Database
) -> None:
    babylon_here(environment, "train", FIRST)
    with database.connect() as conn:
        row = windows.get_window(conn, FIRST)
    assert row is not None and row.dataset_id == AGAIN
