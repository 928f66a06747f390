"""The pages: everything that exists is in the reference, and what a page names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest
from typer.main import get_command

from babylon_assets.cli.app import app
from babylon_assets.config.settings import declarations
from babylon_assets.ledger.specification import TABLES
from babylon_assets.ledger.table import SCHEMA
from babylon_assets.orchestration.metadata import METADATA
from tools.reference import REFERENCE, reference, walk

DOCS = REFERENCE.parent
TEXT = REFERENCE.read_text()
INCIDENTS = sorted((DOCS / "incidents").glob("*.md"))
PAGES = [DOCS.parent / "README.md", *sorted(set(DOCS.rglob("*.md")) - {REFERENCE})]
GROUP = get_command(app)
assert isinstance(GROUP, click.Group)
COMMANDS = dict(walk(GROUP, "babylon"))
SETTINGS = {setting.variable for setting in declarations()}
WALKS = ("A row of `trajectories` to a gradient", "A promotion to an answer")
#: Variables that pages name and that other programs read.
OTHERS = {
    "HTTPS_PROXY",
    "BABYLON_DAGSTER_URL",
    "DAGSTER_HOME",
    "PGPASSWORD",
    "POSTGRES_PASSWORD",
    "PIP_OPTIONS",
    "PIP_EXTRA_INDEX_URL",
    "WANDB_BASE_URL",
    "OPENAI_BASE_URL",
    "HF_ENDPOINT",
    "GLIBC_TUNABLES",
}


def test_the_reference_is_what_the_program_prints() -> None:
    assert reference() == TEXT, "run: python -m tools.reference"


def test_every_command_setting_table_column_and_name_is_in_the_reference() -> None:
    assert [name for name in COMMANDS if f"### {name}\n" not in TEXT] == []
    assert [name for name in SETTINGS if f"| `{name}` |" not in TEXT] == []
    assert [table.name for table in TABLES if f"### {table.name}\n" not in TEXT] == []
    assert [
        name for table in TABLES for name in table.columns if f"| `{name}` | {table.columns[name].type}" not in TEXT
    ] == []
    assert [name for name in METADATA if f"| `{name}` |" not in TEXT] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_can_be_typed(page: Path) -> None:
    text = page.read_text()
    typed = re.findall(r"(?:^|`|&& |\$ )(babylon(?: (?:[a-z][\w-]*|--?[\w-]+|[A-Z]+|\S+))*)", text, flags=re.MULTILINE)
    wrong = []
    for line in typed:
        words = line.split()
        if len(words) == 1 or words[1].startswith(("-", "`")):
            continue
        command = COMMANDS.get(f"babylon {words[1].strip('`,.:;')}")
        if command is None:
            wrong.append(line)
            continue
        options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        wrong += [f"{line}: {w}" for w in re.findall(r"(?<= )--[a-z][\w-]*", line) if w not in options]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_settings_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", page.read_text()))
    assert named - SETTINGS - OTHERS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_and_columns_that_a_page_names_exist(page: Path) -> None:
    known = {table.name for table in TABLES} | {"alembic_version"}
    assert set(re.findall(rf"{SCHEMA}\.([a-z_]+)", page.read_text())) - known == set()


@pytest.mark.parametrize("page", [*PAGES, REFERENCE], ids=lambda page: page.stem)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    broken = []
    for place, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        target = page.parent / place if place else page
        if "://" not in place and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(f"{place}#{anchor}")
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_paths_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`([a-z_]+(?:/[\w.-]+)*/(?:[\w-]+\.\w+)?)`", page.read_text())
    named = [path for path in named if path != "deploy/settings.env"]  # an operator's own file
    roots = (DOCS.parent, DOCS.parent / "babylon_assets", DOCS)
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []


def test_every_stop_of_the_walks_exists() -> None:
    text = (DOCS / "architecture.md").read_text()
    walks = [text.split(f"## {name}\n")[1].split("\n## ")[0] for name in WALKS]
    for walk_of in walks:
        stops = re.findall(r"^\d+\. `([\w.]+)`", walk_of, flags=re.MULTILINE)
        assert 6 <= len(stops) <= 12
        assert [stop for stop in stops if not is_there(f"babylon_assets.{stop}")] == []


def is_there(name: str) -> bool:
    """Whether a dotted name leads to something in a module that can be imported."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        owner, _, of = module.rpartition(".")
        return hasattr(getattr(importlib.import_module(owner), of, None), attribute)


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert sorted(name for name in pages if f"({name})" not in index) == []


@pytest.mark.parametrize("page", INCIDENTS, ids=lambda page: page.stem)
def test_an_incident_says_what_why_what_to_type_and_when_it_is_over(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    assert headings == ["What you see", "Why", "What to type", "How to know that it is over"]
    assert "```" in page.read_text()


def test_every_incident_is_listed_for_operators() -> None:
    operating = (DOCS / "operating.md").read_text()
    assert [page.name for page in INCIDENTS if f"incidents/{page.name}" not in operating] == []
    assert len(INCIDENTS) >= 10
