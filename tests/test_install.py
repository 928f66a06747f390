"""The Makefile's refusals, and that the pins of pyproject.toml and constraints.txt agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
#: The extras that are pinned and locked; the first is what a demo needs.
INSTALLED = ["embedded", "dev", "clients"]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make: apt-get install make")


def make(tmp_path: Path, *arguments: str, programs: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(ROOT), "--no-print-directory", f"VENV={tmp_path / 'venv'}", *arguments]
    path = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})


def python_that(tmp_path: Path, *, lacks: str) -> Path:
    """A Python that says no to the question that has `lacks` in it, and yes to others."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\ncase "$*" in *"{lacks}"*) exit 1;; *-V*) echo "Python 3.10.1";; esac\n')
    program.chmod(0o755)
    return program


def test_a_missing_python_says_what_to_install(tmp_path: Path) -> None:
    refused = make(tmp_path, "demo", "PYTHON=no-such-python")
    assert refused.returncode != 0
    assert "no program 'no-such-python'" in refused.stderr
    assert "apt-get install python3 python3-venv" in refused.stderr


def test_an_old_python_is_named_with_its_version(tmp_path: Path) -> None:
    refused = make(tmp_path, "test", f"PYTHON={python_that(tmp_path, lacks='version_info')}")
    assert refused.returncode != 0
    assert "is Python 3.10.1, Python 3.11 or newer is needed" in refused.stderr
    assert "make test PYTHON=" in refused.stderr


def test_a_python_without_venv_says_what_to_install(tmp_path: Path) -> None:
    refused = make(tmp_path, "demo", f"PYTHON={python_that(tmp_path, lacks='ensurepip')}")
    assert refused.returncode != 0
    assert "apt-get install python3-venv" in refused.stderr


@pytest.mark.parametrize("fails", [False, True])
def test_a_line_says_where_each_long_stage_of_an_installation_begins(tmp_path: Path, fails: bool) -> None:
    """pip is a program that prints what pip prints."""
    program = tmp_path / "venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    lines = [
        "Looking in indexes: https://pypi.example/simple",
        "Collecting torch==2.13.0",
        "  Downloading torch-2.13.0-cp311-none-any.whl (887.9 MB)",
        "Collecting rich",
        "  Downloading rich-1-none-any.whl (242 kB)",
        "Installing collected packages: torch, rich",
    ]
    printed = "".join(f"echo '{line}'\n" for line in lines)
    program.write_text(f"#!/bin/sh\n{printed}echo 'no room' >&2\nexit {int(fails)}\n")
    program.chmod(0o755)
    done = make(tmp_path, "install", "LOCKED=false")
    told = done.stdout.splitlines()
    assert told[1:] == [
        "  looking up the packages",
        "  fetching torch-2.13.0-cp311-none-any.whl (887.9 MB)",
        "  writing the packages, which takes longest",
        *([] if fails else ["installed"]),
    ]
    assert told[0].startswith("installing into ")
    assert done.stderr.startswith("no room\n")
    assert ("error: pip could not install" in done.stderr, done.returncode != 0) == (fails, fails)


def test_how_much_is_written_is_said_until_it_is_done(tmp_path: Path) -> None:
    """Of pip, and of the ten seconds between two lines, stand-ins; how much there is, is what is there."""
    program, programs = tmp_path / "venv" / "bin" / "python", tmp_path / "programs"
    program.parent.mkdir(parents=True)
    programs.mkdir()
    seconds = shutil.which("sleep")
    program.write_text(f"#!/bin/sh\necho 'Installing collected packages: torch'\n{seconds} 1\n")
    (programs / "sleep").write_text(f"#!/bin/sh\nexec {seconds} 0.2\n")
    for stand_in in (program, programs / "sleep"):
        stand_in.chmod(0o755)
    (tmp_path / "venv" / "weights").write_bytes(bytes(3_000_000))
    told = make(tmp_path, "install", "LOCKED=false", programs=programs).stdout.splitlines()
    assert 2 <= len(told[2:-1]) <= 5
    assert set(told[2:-1]) <= {f"  writing the packages: {size} MB are there" for size in (3, 4)}


def test_an_unknown_bench_points_at_the_list(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".babylon-installed-dev").touch()
    refused = make(tmp_path, "bench-nothing")
    assert refused.returncode != 0
    assert "no bench 'nothing'; 'make help' lists them" in refused.stderr
    assert "learning" in make(tmp_path, "help").stdout.partition("bench-NAME")[2]


def pins(lines: list[str]) -> dict[str, str]:
    found = (PINNED.match(line.strip()) for line in lines)
    return {normal(match[1]): match[2] for match in found if match}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_constraints_pin_what_is_installed_here() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert len(pinned) > 100
    installed = {normal(each.metadata["Name"]): each.version.split("+")[0] for each in distributions()}
    differ = {
        name: (version, installed[name]) for name, version in pinned.items() if installed.get(name, version) != version
    }
    assert differ == {}


def test_the_exact_pins_of_the_project_are_those_of_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = pins([*project["dependencies"], *(line for name in INSTALLED for line in extras[name])])
    assert {"dagster", "openpipe-art", "torch", "transformers"} <= set(wanted)
    pinned = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert {name: pinned[name] for name in wanted} == wanted


#: Releases that somebody else had put on the index in a maker's name.
COMPROMISED = {"litellm": {"1.82.7", "1.82.8"}}
LOCKED = re.compile(
    r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: ; (.*?))?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)


def locked(name: str = "requirements-dev.lock") -> dict[str, tuple[str, str]]:
    """What a lock holds: by name the version, and on which systems it is installed (empty: on all)."""
    text = (ROOT / name).read_text()
    found = {normal(match[1]): (match[2], match[3] or "") for match in LOCKED.finditer(text)}
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(found) == len(lines) > 100, "a line without a version or without a hash"
    return found


def test_the_lock_holds_the_versions_of_the_constraints_and_a_hash_of_every_file() -> None:
    lock, pinned = locked(), pins((ROOT / "constraints.txt").read_text().splitlines())
    assert {name: lock.get(name, ("missing", ""))[0] for name in pinned} == pinned, "type: make lock"
    more = {name for name, (_, systems) in lock.items() if name not in pinned and not systems}
    assert "setuptools" in more <= {"pip", "setuptools"}  # which builds the project; the rest is another system's


@pytest.mark.parametrize(
    ("name", "extras"), [("requirements.lock", INSTALLED[:1]), ("requirements-dev.lock", INSTALLED)]
)
def test_a_lock_satisfies_the_project_and_names_no_index(name: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional, lock = project["optional-dependencies"], locked(name)
    wanted = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    refused = [
        str(each) for each in map(Requirement, wanted) if not each.specifier.contains(lock[normal(each.name)][0])
    ]
    assert refused == [], "type: make lock"
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links| @ ", text)


def test_the_lock_of_what_runs_is_that_of_the_tests_without_their_tools() -> None:
    whole, running = locked(), locked("requirements.lock")
    assert running.items() <= whole.items()
    assert {"anthropic", "hypothesis", "llm", "mypy", "pytest", "ruff"} <= whole.keys() - running.keys()


@pytest.mark.parametrize(
    ("target", "extras"),
    [
        *((target, "embedded") for target in ("demo", "up", "install")),
        *((target, "embedded,dev,clients") for target in ("test", "soak", "lint", "format", "bench-data")),
    ],
)
def test_only_tests_and_lint_install_what_only_they_need(tmp_path: Path, target: str, extras: str) -> None:
    planned = make(tmp_path, "--dry-run", target, f"PYTHON={sys.executable}").stdout
    assert f"-c constraints.txt -e '.[{extras}]'" in planned
    (tmp_path / "venv").mkdir()
    for stamp in (".babylon-installed", ".babylon-installed-dev"):
        (tmp_path / "venv" / stamp).touch()
    assert "pip install" not in make(tmp_path, "--dry-run", target, f"PYTHON={sys.executable}").stdout


def test_compromised_releases_are_neither_pinned_nor_taken() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {each.name: each for each in map(Requirement, project["optional-dependencies"]["embedded"])}
    pinned, lock = pins((ROOT / "constraints.txt").read_text().splitlines()), locked()
    for name, versions in COMPROMISED.items():
        assert not versions & {pinned[name], lock[name][0]}
        assert not [version for version in versions if wanted[name].specifier.contains(version)]


def test_a_locked_install_compares_hashes_and_lets_the_project_bring_nothing_along(tmp_path: Path) -> None:
    commands = make(tmp_path, "--dry-run", "install", "LOCKED=true", f"PYTHON={sys.executable}").stdout
    assert "--require-hashes -r requirements.lock && " in commands
    assert "--no-deps --no-build-isolation -e ." in commands
    assert "-r requirements-dev.lock && " in make(tmp_path, "--dry-run", "test", "LOCKED=true").stdout
    assert "constraints.txt" not in commands


def test_constraints_name_no_local_build() -> None:
    assert "+" not in "".join(pins((ROOT / "constraints.txt").read_text().splitlines()).values())


@pytest.mark.parametrize("form", ["wheel", "sdist"])
def test_the_reports_templates_are_in_what_is_built(form: str, tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "babylon_assets" / "report", tmp_path / "babylon_assets" / "report")
    (tmp_path / "babylon_assets" / "__init__.py").touch()
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "env.py").touch()
    program = f"from setuptools import build_meta; build_meta.build_{form}('out')"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    [built] = (tmp_path / "out").iterdir()
    shutil.unpack_archive(built, tmp_path / "unpacked", "zip" if form == "wheel" else "gztar")
    templates = {path.name for path in (ROOT / "babylon_assets" / "report" / "templates").iterdir()}
    assert templates and templates <= {path.name for path in (tmp_path / "unpacked").rglob("templates/*")}
