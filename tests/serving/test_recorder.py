"""Recording: nothing lost and nothing twice, with the database down, the process killed, a record torn or refused."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import Database, open_database
from babylon_assets.ledger.inference_calls import calls_by_id, missing_calls
from babylon_assets.ledger.lineage import forget_agent
from babylon_assets.ledger.trajectories import replace_window
from babylon_assets.serving import recorder as recording
from babylon_assets.serving import spool
from babylon_assets.serving.recorder import Recorder
from babylon_assets.serving.spool import Spool
from tests.gateways import wait_for
from tests.ledger.values import WINDOW, inference_call, record

NOWHERE = open_database(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))

#: Records ten calls a time, says how many, and is killed in the middle of it.
VICTIM = """
import sys
from pathlib import Path
from tests.serving.test_recorder import NOWHERE
from babylon_assets.serving.recorder import Recorder
from tests.ledger.values import inference_call
recorder = Recorder(NOWHERE, Path(sys.argv[1]))
for number in range(0, 100_000, 10):
    recorder.record([inference_call(each) for each in range(number, number + 10)])
    print(number + 10, flush=True)
"""


@pytest.fixture
def recorder(database: Database, tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(database, tmp_path / "spool")
    yield made
    made.close()


def count(database: Database) -> int:
    with database.connect() as conn:
        row = conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone()
    assert row is not None
    return int(row[0])


def test_what_is_recorded_comes_back_the_same(recorder: Recorder, database: Database) -> None:
    call = inference_call(sampling={"top_p": 0.5, "stop": ["\n"]}, response="NUL \0 and “ü”")
    bare = inference_call(1, prompt_token_ids=None, token_ids=None, logprobs=None, seed=None)
    recorder.record([call, bare])
    assert recorder.flush(20)
    with database.connect() as conn:
        assert calls_by_id(conn, ["call-0", "call-1"]) == {"call-0": call, "call-1": bare}


def test_with_the_database_down_calls_wait_on_disk_and_are_written_later(database: Database, tmp_path: Path) -> None:
    down = Recorder(NOWHERE, tmp_path / "spool")
    for number in range(500):
        down.record([inference_call(number)])
    wait_for(lambda: not down.database_up)
    assert not down.flush(0.1)
    assert down.waiting() > 500 * 100
    down._database = database
    assert down.flush(20)
    assert (count(database), down.waiting(), down.database_up) == (500, 0, True)
    down.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_waited_of_an_agent_that_was_forgotten_since_is_not_written(database: Database, tmp_path: Path) -> None:
    down, nobodys = Recorder(NOWHERE, tmp_path / "spool"), {"agent_id": None, "trajectory_id": None}
    before = [inference_call(0, agent_id="a1"), inference_call(1, agent_id="a1", received_at=datetime.now(UTC))]
    before += [inference_call(2, agent_id=None, trajectory_id="t1")]
    down.record([*before, inference_call(3, agent_id="a2"), inference_call(4, **nobodys)])
    wait_for(lambda: not down.database_up)
    with database.connect() as conn:
        replace_window(conn, WINDOW, [record(1)], [])
        forget_agent(conn, "a1")
    down.record([inference_call(5, agent_id="a1", received_at=datetime.now(UTC))])
    down._database = database
    assert down.flush(20)
    down.close()
    with database.connect() as conn:
        assert sorted(missing_calls(conn, [f"call-{n}" for n in range(6)])) == [f"call-{n}" for n in range(3)]


def test_a_killed_process_has_lost_nothing_and_the_next_one_writes_it(database: Database, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as victim:
        assert victim.stdout is not None
        for line in victim.stdout:
            if int(line) >= 300:
                break
        victim.send_signal(signal.SIGKILL)
        told = int(([line, *victim.stdout])[-1].strip() or 0)
    recorder = Recorder(database, tmp_path)
    assert recorder.flush(30)
    recorder.close()
    with database.connect() as conn:
        assert missing_calls(conn, [f"call-{number}" for number in range(told)]) == []
    left = [path.name for folder in tmp_path.iterdir() for path in folder.iterdir()]
    assert all(name == "lock" or name.endswith(f".{spool.TORN}") for name in left)  # a write that the kill cut in two


def test_the_folder_of_a_process_that_lives_is_left_alone(database: Database, tmp_path: Path) -> None:
    one = Recorder(NOWHERE, tmp_path)
    one.record([inference_call()])
    wait_for(lambda: not one.database_up)
    other = Recorder(database, tmp_path)
    assert other.flush(20)
    assert count(database) == 0
    other.close()
    one._database = database
    one.close()
    assert count(database) == 1


def test_what_was_written_but_not_removed_is_not_written_twice(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(_path: Path, missing_ok: bool = False) -> None:
        raise OSError("killed here")

    recorder = Recorder(database, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", keep)
        recorder.record([inference_call(number) for number in range(5)])
        wait_for(lambda: count(database) == 5)
        wait_for(lambda: not recorder.database_up)
    assert recorder.waiting() > 0
    recorder.record([inference_call(5)])
    assert recorder.flush(20)
    assert (count(database), recorder.waiting()) == (6, 0)
    recorder.close()


@pytest.mark.parametrize("unfit", [{"token_ids": [1, 2]}, {"token_ids": [2**31]}, {"prompt_token_ids": [-(2**40)]}])
def test_one_refused_record_does_not_stop_the_others(
    recorder: Recorder, database: Database, tmp_path: Path, unfit: dict[str, Any]
) -> None:
    bad = inference_call(1, **{"token_ids": [1], "logprobs": [-0.5], **unfit})
    recorder.record([inference_call(0), bad, inference_call(2)])
    assert recorder.flush(20)
    assert (count(database), recorder.refused) == (2, 1)
    (kept,) = (tmp_path / "spool").glob(f"*/{spool.REFUSED}")
    assert [recording._decode(record) for record in spool.read(kept)] == [replace(bad)]


def test_the_torn_end_of_a_file_is_left_out(tmp_path: Path) -> None:
    one = Spool(tmp_path)
    one.append([b"first", b"second"])
    (path,) = one.sealed()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert list(spool.read(path)) == [b"first", b"second"][: (cut >= 13) + (cut >= 27)]
    path.write_bytes(whole[:-1] + b"X")
    assert list(spool.read(path)) == [b"first"]
    path.unlink()
    one.close()


def test_what_follows_a_damaged_record_is_kept_for_a_person(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Recorder(NOWHERE, tmp_path)
    for number in range(3):
        dead.record([inference_call(number)])
    wait_for(lambda: not dead.database_up)
    dead.close(0.1)
    (path, *_) = sorted(tmp_path.glob("*/*.records"))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    recorder = Recorder(database, tmp_path)
    assert recorder.flush(20)
    (kept,) = tmp_path.glob(f"*/*.{spool.TORN}")
    assert (kept.read_bytes(), count(database)) == (bytes(damaged), 2)
    assert "no record" in caplog.text
    recorder.close()


def test_a_file_that_is_opened_while_others_are_listed_is_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, listed = Spool(tmp_path), Path.glob
    one.append([b"early"])

    def append_first(self: Path, pattern: str) -> Iterator[Path]:
        one.append([b"late"])
        return listed(self, pattern)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", append_first)
        first = one.sealed()
    assert [record for path in first for record in spool.read(path)] == [b"early"]
    for path in first:
        path.unlink()
    one.append([b"later"])
    assert [record for path in one.sealed() for record in spool.read(path)][-2:] == [b"late", b"later"]


def test_nothing_is_lost_between_one_who_appends_and_one_who_removes(tmp_path: Path) -> None:
    one, found = Spool(tmp_path), list[int]()
    appending = threading.Thread(target=lambda: [one.append([str(number).encode()]) for number in range(20_000)])
    appending.start()
    while True:
        last_turn = not appending.is_alive()
        for path in one.sealed():
            found += map(int, spool.read(path))
            path.unlink()
        if last_turn:
            break
    assert found == list(range(20_000))


def test_a_full_disk_breaks_no_answer_and_costs_bounded_memory_and_time(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def full(_self: Spool, records: Sequence[bytes]) -> None:
        tried.append(len(records))
        raise OSError(28, "No space left on device")

    size = len(recording._encode(inference_call(100)))
    monkeypatch.setattr(recording, "HELD_BYTES", 30 * size)
    monkeypatch.setattr(recording, "WRITTEN_BYTES", 3 * size)
    monkeypatch.setattr(recording, "EVERY_SECONDS", 60)  # the thread takes its turns when it is asked to
    recorder = Recorder(database, tmp_path / "spool")
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "append", full)
        for number in range(100, 200):
            recorder.record([inference_call(number)])
        assert tried == [1]  # nobody who answers tries again what the thread tries
        assert recorder.flush(20)
        assert tried == [1, 4]
    assert (recorder.lost, recorder._held_bytes) == (70, 30 * size)
    assert "70 calls are lost" in caplog.text
    recorder.record([inference_call(9)])
    assert recorder.flush(20)
    assert (recorder.lost, recorder._held_bytes, recorder.waiting()) == (71, 0, 0)
    recorder.record([inference_call(10)])
    recorder.close()
    with database.connect() as conn:
        assert missing_calls(conn, [f"call-{number}" for number in (*range(100, 130), 10)]) == []


def test_nobody_else_may_read_what_waits(tmp_path: Path, database: Database) -> None:
    waiting, before = tmp_path / "home" / "spool", os.umask(0)
    try:
        waiting.mkdir(mode=0o755, parents=True)  # of an earlier version
        waiting.parent.chmod(0o700)
        recorder = Recorder(NOWHERE, waiting)
        recorder.record([inference_call(0)])
        wait_for(lambda: not recorder.database_up)
        assert {stat.S_IMODE(path.stat().st_mode) for path in waiting.rglob("*.records")} == {0o600}
        recorder.record([inference_call(1, token_ids=[1, 2], logprobs=[-0.5])])
        recorder._database = database
        assert recorder.flush(20)
    finally:
        os.umask(before)
    assert recorder.refused == 1
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in waiting.rglob("*")}
    assert {mode for name, mode in modes.items() if name in (spool.REFUSED, "lock")} == {0o600}
    folders = [path for path in (tmp_path / "home").rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    recorder.close()


def test_bytes_that_wait_are_counted_without_a_look_at_the_disk(tmp_path: Path, database: Database) -> None:
    first = Recorder(NOWHERE, tmp_path / "spool")
    first.record([inference_call(0), inference_call(1)])
    waiting = first.waiting()
    assert waiting == sum(path.stat().st_size for path in (tmp_path / "spool").rglob("*.records"))
    first.close(0.1)
    second = Recorder(database, tmp_path / "spool")
    assert second.waiting() in (waiting, 0)
    assert second.flush(20)
    assert second.waiting() == 0
    second.close()
