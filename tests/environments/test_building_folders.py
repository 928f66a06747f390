"""Folders appear whole, and what a killed process was building is removed by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from babylon_assets.environments.building_folders import building

#: Builds a folder, says so, and waits.
BUILDER = """
import sys, time
from pathlib import Path
from babylon_assets.environments.building_folders import building
with building(Path(sys.argv[1])) as beside:
    (beside / "part").write_text("half")
    print("building", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def builder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path / "model")], stdout=-1, text=True)
    assert process.stdout is not None and process.stdout.readline() == "building\n"
    return process


def build(folder: Path) -> None:
    with building(folder) as beside:
        (beside / "whole").touch()


def test_two_processes_build_the_same_folder_and_the_first_to_be_done_gives_it(
    builder: subprocess.Popen[str], tmp_path: Path
) -> None:
    """However long the other has been at it."""
    [theirs] = tmp_path.glob("model.building-*")
    os.utime(theirs, (1, 1))
    try:
        build(tmp_path / "model")
        assert (theirs / "part").read_text() == "half"
        assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]
    finally:
        builder.kill()
        builder.wait()


def test_what_a_killed_process_was_building_is_removed(builder: subprocess.Popen[str], tmp_path: Path) -> None:
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    [theirs] = tmp_path.glob("model.building-*")
    build(tmp_path / "model")
    assert theirs.exists(), "another process may have made it just now, and not have its lock yet"
    os.utime(theirs, (1, 1))
    build(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_after_an_exception_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError), building(tmp_path / "model"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
