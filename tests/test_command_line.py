"""What holds for every command: an example, JSON where it prints data, no colour in a pipe, a light start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from babylon_assets.cli import chain, stopping
from babylon_assets.cli.app import COMMANDS, app
from babylon_assets.cli.promote import _moment
from babylon_assets.ledger.checkpoints import insert_checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import save_dataset
from babylon_assets.ledger.windows import upsert_window
from tests.ledger.values import WINDOW, checkpoint, dataset, root, sample

HEAVY = frozenset(
    {"torch", "art", "transformers", "peft", "dagster", "matplotlib", "polars", "litellm", "wandb", "openai", "uvicorn"}
)
FRAMES = frozenset({"pandas", "numpy"})
#: Commands that do something and say that it is done, in a line or two that no script reads.
WITHOUT_DATA = frozenset(
    (
        *("demo", "up", "down", "simulate", "serve", "site", "migrate", "train", "backfill"),
        *("import", "export", "doctor", "report"),
    )
)
#: What a person types while waiting for an answer, with arguments, and what it must not load.
QUICK = [
    (["windows"], HEAVY | {"alembic", "sqlalchemy"}),
    (["windows", "--json"], HEAVY | {"alembic", "sqlalchemy"}),
    (["status"], HEAVY | FRAMES | {"alembic", "sqlalchemy"}),
    (["status", WINDOW], HEAVY | FRAMES | {"alembic", "sqlalchemy"}),
    (["lineage", "babylon-agent@1"], HEAVY | FRAMES | {"alembic", "sqlalchemy"}),
    (["chains"], HEAVY | FRAMES | {"alembic", "sqlalchemy"}),
    (["doctor"], HEAVY),
    (["report"], HEAVY | {"alembic", "sqlalchemy"}),
    (["--help"], HEAVY | FRAMES | {"alembic", "sqlalchemy"}),
]


def commands(group: click.Group | None = None, before: str = "babylon") -> Iterator[tuple[str, click.Command]]:
    """Every command of the app with what is typed for it, those of groups in groups as well."""
    group = group or get_command(app)  # type: ignore[assignment]
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}", command


NAMED = dict(commands())


@pytest.fixture
def ledger(database: Database) -> Database:
    """A chain of one trained window."""
    frozen = dataset(sample(0))
    with database.connect() as conn:
        save_dataset(conn, frozen)
        insert_checkpoint(conn, root())
        made = checkpoint(1, WINDOW, frozen.id)
        insert_checkpoint(conn, made)
        upsert_window(
            conn, WINDOW, status="trained", dataset_id=frozen.id, checkpoint_id=made.id, parent_id=made.parent_id
        )
    return database


def environment(database: Database, home: Path) -> dict[str, str]:
    return {"DATABASE_URL": database.url, "BABYLON_HOME": str(home), "PATH": str(Path(sys.executable).parent)}


def test_the_commands_are_found() -> None:
    assert len(NAMED) >= 14
    assert {"babylon windows", "babylon report", "babylon lineage"} <= set(NAMED)


@pytest.mark.parametrize("typed", NAMED)
def test_every_command_explains_itself_with_an_example_that_it_takes(typed: str) -> None:
    shown = CliRunner().invoke(app, [*typed.split()[1:], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    examples = re.findall(rf"Example: .*?({re.escape(typed)}(?: [^\n(]*)?)", shown.output)
    assert examples, f"no example of {typed} in its help"
    options = {option for parameter in NAMED[typed].params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [
        word for example in examples for word in example.split() if word.startswith("--") and word not in options
    ]
    assert unknown == []


@pytest.mark.parametrize("typed", NAMED)
def test_every_parameter_is_explained(typed: str) -> None:
    context = click.Context(NAMED[typed])
    records = {
        str(one.name): one.get_help_record(context) for one in NAMED[typed].params if not getattr(one, "hidden", False)
    }
    silent = [name for name, record in records.items() if record is None or not record[1].strip()]
    assert silent == []


def test_every_command_that_prints_data_prints_it_for_scripts() -> None:
    plain = {name.split()[-1] for name, made in NAMED.items() if "json" not in {one.name for one in made.params}}
    assert plain <= WITHOUT_DATA, "give it --json, or list it as one that prints no data"


@pytest.mark.parametrize("arguments", [["windows"], ["status"], ["chains"], ["lineage", "babylon-agent@1"]])
def test_json_is_json_and_nothing_else(ledger: Database, tmp_path: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, [*arguments, "--json"], env=environment(ledger, tmp_path))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "absent"), QUICK, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_quick_commands_load_nothing_heavy_and_write_no_colours_into_a_pipe(
    ledger: Database, tmp_path: Path, arguments: list[str], absent: frozenset[str]
) -> None:
    program = (
        "import sys\nfrom babylon_assets.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\n"
        f"finally:\n    print('LOADED', *sorted(set(sys.modules) & {set(absent)!r}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(ledger, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = re.findall(r"^LOADED(.*)$", done.stderr, flags=re.MULTILINE)
    assert loaded == [""], done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout


def test_a_command_says_what_it_does_before_it_imports_what_takes_seconds(ledger: Database, tmp_path: Path) -> None:
    begins = {
        "up": "preparing the database",
        "serve": "starting the gateway",
        "site": "starting the site",
        "simulate": "preparing the game",
        "doctor": "checking the installation",
    }
    program = (
        "import sys\nsys.modules.update(dict.fromkeys(['dagster', 'pandas', 'starlette', 'httpx', 'uvicorn']))\n"
        "from babylon_assets.cli.app import main\n"
        "for command in sys.argv[1:]:\n    try:\n        main([command])\n    except SystemExit:\n        pass\n"
    )
    ports = {"DAGSTER_PORT": "3999", "GATEWAY_PORT": "8999"}
    done = subprocess.run(
        [sys.executable, "-c", program, *begins],
        env={**environment(ledger, tmp_path), **ports},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if line in begins.values()]
    assert said == list(begins.values()), done.stderr


def test_ctrl_c_has_its_exit_code_even_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """Imports run source text, and CPython ends by the signal after a KeyboardInterrupt that came through that."""
    (tmp_path / "interrupted.py").write_text("""
from babylon_assets.cli import app as cli

@cli.app.command()
def stop():
    exec("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")

cli.main(["stop"])
""")
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count(b"\n"), done.stderr[:17]) == (130, 1, b"stopped by Ctrl-C")


@pytest.mark.parametrize(("name", "code", "by"), [("SIGINT", 130, "Ctrl-C"), ("SIGTERM", 143, "SIGTERM")])
@pytest.mark.parametrize("module", ["typer", "alembic"], ids=["the command line's", "the command's"])
def test_a_command_that_still_imports_ends_with_one_sentence(
    tmp_path: Path, module: str, name: str, code: int, by: str
) -> None:
    """The signal comes from a module that is imported, in place of the library's."""
    (tmp_path / f"{module}.py").write_text(f"""
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(9)
""")
    (tmp_path / "home" / "postgres").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "babylon_assets", "migrate"],
        env={
            **{variable: value for variable, value in os.environ.items() if not variable.startswith("DATABASE_URL")},
            "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}",
            "BABYLON_HOME": str(tmp_path / "home"),
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        },
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, STOPPED.replace("SIGTERM", by))


def test_a_command_that_has_ended_keeps_its_exit_code(tmp_path: Path) -> None:
    """Python has no handlers while it takes itself apart; modules' objects are deleted then."""
    (tmp_path / "deleted.py").write_text("""
import sys
from babylon_assets.__main__ import main

class Deleted:
    def __del__(self, kill=__import__("os").kill, process=__import__("os").getpid()):
        kill(process, 2)

kept = sys.kept = Deleted()
sys.argv[1:] = ["--version"]
main()
""")
    assert run_module(tmp_path, "deleted").returncode == 0


def test_an_interruption_that_python_drops_comes_again(tmp_path: Path) -> None:
    """As one does that comes while a finalizer runs: importlib has one for each module."""
    (tmp_path / "finalizing.py").write_text("""
from babylon_assets.cli import app as cli

class Finalizing:
    def __del__(self):
        import os, signal, time
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)

@cli.app.command()
def drop():
    import time
    Finalizing()
    time.sleep(60)

cli.main(["drop"])
""")
    done = run_module(tmp_path, "finalizing")
    assert (done.returncode, done.stderr) == (143, STOPPED)


def test_a_gateway_whose_model_is_still_being_loaded_ends_as_well(tmp_path: Path) -> None:
    program = f"""
import os, signal, socket, threading, time
from pathlib import Path
from babylon_assets.config.settings import Settings
from babylon_assets.serving.http import server

server.MOST_SECONDS = 0.5
threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
listening = socket.create_server(("127.0.0.1", 0))
server.serve(Settings().gateway, "m", None, lambda loop: time.sleep(60), listening, Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["stopped; what was recorded is kept"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["window"], "windows"),
        (["chain"], "chains"),
        (["promot"], "promote"),
        (["reprot"], "report"),
        (["score"], "scores"),
        (["--verison"], "--version"),
        (["chains", "--jsn"], "--json"),
        (["report", "--outpt", "x"], "--output"),
    ],
    ids=" ".join,
)
def test_a_mistyped_name_gets_one_suggestion(typed: list[str], meant: str) -> None:
    done = CliRunner().invoke(app, typed, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert re.findall(r"Did you mean (.*?)\?", done.output) == [f"'{meant}'"], done.output


STOPPED = "stopped by SIGTERM; what is done is kept, and the same command goes on from it\n"


def run_module(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """A module of a folder as a program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", name],
        env={**os.environ, "PYTHONPATH": f"{folder}:{Path(__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_library_that_makes_another_error_of_an_interruption_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "wrapped.py").write_text("""
from babylon_assets.cli import app as cli

@cli.app.command()
def wrap():
    import os, signal, time
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt as error:
        raise RuntimeError("a class could not be made") from error

cli.main(["wrap"])
""")
    done = run_module(tmp_path, "wrapped")
    assert (done.returncode, done.stderr) == (143, STOPPED)


def test_sigterm_ends_a_command_whose_thread_a_library_holds(tmp_path: Path) -> None:
    """It swallows the interruption, as a library may: the timer ends it, with the one sentence."""
    (tmp_path / "held.py").write_text("""
from babylon_assets.cli import app as cli
from babylon_assets.cli import stopping

stopping.MOST_SECONDS = 0.3

@cli.app.command()
def hold():
    import os, signal, time
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        time.sleep(60)

cli.main(["hold"])
""")
    done = run_module(tmp_path, "held")
    assert (done.returncode, done.stdout, done.stderr) == (143, "", STOPPED)


def test_what_begins_anew_does_not_say_that_it_goes_on(
    ledger: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopping, "_sentences", [])
    monkeypatch.setattr(stopping, "_outcome", stopping._outcome[:])
    for name, value in environment(ledger, tmp_path).items():
        monkeypatch.setenv(name, value)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("babylon_assets.training.reproduction.reproduce", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chain.reproduce("babylon-agent@1")
    stopping.say_stopped()
    assert "stopped; nothing of it is kept, and the same command begins anew" in capfd.readouterr().err


def test_a_library_that_aborts_when_the_interpreter_ends_has_no_say_after_a_signal(tmp_path: Path) -> None:
    """As torch may, whose threads compute while the interpreter ends beneath them."""
    (tmp_path / "computing.py").write_text("""
from babylon_assets.cli import app as cli

@cli.app.command()
def compute():
    import atexit, ctypes, os, signal, time
    atexit.register(print, "tidied")
    ctypes.CDLL(None).__cxa_atexit(ctypes.CDLL(None).abort, None, None)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

cli.main(["compute"])
""")
    done = run_module(tmp_path, "computing")
    assert (done.returncode, done.stdout, done.stderr) == (143, "tidied\n", STOPPED)


def test_a_signal_that_dagster_took_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "taken.py").write_text("""
from babylon_assets.cli import app as cli

@cli.app.command()
def take():
    import signal
    raise KeyboardInterrupt(int(signal.SIGTERM))

cli.main(["take"])
""")
    done = run_module(tmp_path, "taken")
    assert (done.returncode, done.stderr) == (143, STOPPED)


def test_a_time_without_a_day_is_the_last_one_and_one_to_come_is_wrong_usage() -> None:
    now = datetime.now(UTC)
    moment = _moment(f"{now + timedelta(hours=1):%H:%M}")
    assert timedelta(hours=22) < now - moment < timedelta(hours=24)
    done = CliRunner().invoke(app, ["promotions", "--at", f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M}"])
    assert done.exit_code == 2 and "is still to come" in done.output


#: None of them may begin a home: a mistyped folder would get a PostgreSQL of its own.
NOT_BEGINNING = [
    *(["windows"], ["status"], ["chains"], ["migrate"], ["train", "2026-11-05T14:00"], ["train", "--follow"]),
    *(["serve"], ["simulate"], ["promotions"], ["report"], ["doctor"]),
]


@pytest.mark.parametrize("arguments", NOT_BEGINNING, ids=" ".join)
def test_in_a_folder_without_a_home_a_command_says_so_and_begins_none(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {"BABYLON_HOME": f"{tmp_path}/.babylon", "DATABASE_URL": None, "GATEWAY_PORT": "8999", "COLUMNS": "500"}
    done = CliRunner().invoke(app, arguments, env=variables)
    assert done.exit_code == 1, done.output
    assert f"{tmp_path}/.babylon holds no data" in done.output
    assert "begin here: `babylon up`, " in done.output
    assert not (tmp_path / ".babylon" / "postgres").exists()


def test_a_typo_gets_one_suggestion_and_no_window_is_wrong_usage() -> None:
    typo = CliRunner().invoke(app, ["windws"])
    assert (typo.exit_code, typo.output.count("Did you mean 'windows'?")) == (2, 1)
    for arguments in (["train", "2026-11-05"], ["status", "now"], ["backfill", "2026-11-05T14:30", "2026-11-05T15:00"]):
        wrong = CliRunner().invoke(app, arguments, env={"DATABASE_URL": "postgresql://127.0.0.1:1/none"})
        assert (wrong.exit_code, "is not a window" in wrong.output) == (2, True), wrong.output


def test_help_has_groups_with_every_command_and_the_version_is_said() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    places = [shown.index(f"─ {group} ─") for group in COMMANDS]
    assert places == sorted(places)
    assert set(NAMED) == {f"babylon {name}" for group in COMMANDS.values() for name in group}
    assert CliRunner().invoke(app, ["--version"]).output == f"babylon {version('babylon_assets')}\n"


def test_a_path_that_the_system_refuses_is_one_sentence(ledger: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (["report", "--output", "/proc/no/page.html"], ["export", WINDOW, "--to", "/proc/no"]):
        done = CliRunner().invoke(app, arguments, env=environment(ledger, tmp_path))
        assert (done.exit_code, "Traceback" in done.output) == (1, False), done.output
        assert "/proc/no" in done.output
    taken = CliRunner().invoke(
        app, ["export", WINDOW, "--to", str(tmp_path / "file")], env={**environment(ledger, tmp_path), "COLUMNS": "500"}
    )
    assert (taken.exit_code, "move the file that is where a folder should be" in taken.output) == (1, True)
    assert "room" not in taken.output
    down = CliRunner().invoke(app, ["down"], env={"BABYLON_HOME": str(tmp_path / "none"), "COLUMNS": "500"})
    assert (down.exit_code, "there is no home with a PostgreSQL" in down.output) == (0, True), down.output
    for command in (["up"], ["windows"]):
        homeless = CliRunner().invoke(app, command, env={**environment(ledger, tmp_path / "file"), "COLUMNS": "500"})
        assert (homeless.exit_code, f"{tmp_path}/file is a file where the home" in homeless.output) == (2, True)
    refused = CliRunner().invoke(app, ["up"], env=environment(ledger, Path("/proc/no/home")))
    assert (refused.exit_code, "set BABYLON_HOME to another folder" in " ".join(refused.output.split())) == (1, True)


def test_a_window_to_come_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    variables = {"BABYLON_HOME": str(tmp_path / "home"), "DATABASE_URL": ""}
    done = CliRunner().invoke(app, ["demo", "--until", "2999-01-01T00:00"], env=variables)
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
