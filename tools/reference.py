"""Writes docs/reference.md: every command, setting, table with its columns, and name of metadata, from their sources.

`python -m tools.reference` writes it; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import click
from rich.text import Text
from typer.main import get_command

from babylon_assets.cli.app import app
from babylon_assets.config.settings import Declaration, declarations
from babylon_assets.ledger.asset_frames import FRAMES
from babylon_assets.ledger.specification import TABLES
from babylon_assets.ledger.table import SCHEMA
from babylon_assets.orchestration.metadata import METADATA

REFERENCE = Path(__file__).parent.parent / "docs" / "reference.md"
HEAD = """# Reference

Printed from the program by `python -m tools.reference`: [commands](#commands), [settings](#settings),
[tables](#tables), [frames](#frames), [metadata](#metadata). How to run all this is in [operating.md](operating.md).
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, _commands(), _settings(), _tables(), _frames(), _metadata()])


def _commands() -> str:
    group = get_command(app)
    assert isinstance(group, click.Group)
    codes = "0 done, 1 a person must act, 2 wrong usage or a wrong setting, 75 try again later"
    parts = [f"## Commands\n\nExit codes: {codes}.\n"]
    for typed, command in walk(group, "babylon"):
        context = click.Context(command, info_name=typed)
        usage = " ".join([typed, *command.collect_usage_pieces(context)])
        parts.append(
            f"### {typed}\n\n```\n{usage}\n```\n\n{_prose(command.help or '')}\n{_parameters(command, context)}"
        )
    return "\n".join(parts)


def walk(group: click.Group, before: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with what is typed for it, those of groups in groups as well."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}", command


def _prose(text: str) -> str:
    """A command's help as markdown: examples in code, lines joined to paragraphs."""
    shown = []
    for paragraph in text.replace("\f", "").split("\n\n"):
        plain = " ".join(paragraph.split())
        before, example, after = plain.partition("Example: ")
        if example:
            typed = after.partition("[/]")[0].removeprefix("[bold]")
            rest = Text.from_markup(after.partition("[/]")[2]).plain
            plain = f"{before}Example: `{typed}`{rest}"
        shown.append(Text.from_markup(plain).plain)
    return "\n\n".join(shown) + "\n"


def _parameters(command: click.Command, context: click.Context) -> str:
    records = [
        record for option in command.params if (record := option.get_help_record(context)) and "--help" not in record[0]
    ]
    if not records:
        return ""
    rows = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def _settings() -> str:
    parts = [
        "## Settings\n\nRead from the environment, and from the `.env` of the current folder or the nearest one "
        "above it. In code each is a field of a group of `Settings`, such as `settings.embedded`.\n"
    ]
    for group, settings in groupby(declarations(), key=lambda setting: setting.group):
        parts.append(f"**{group or 'general'}**\n\n{settings_table(settings)}\n")
    return "\n".join(parts)


def settings_table(settings: Iterable[Declaration]) -> str:
    """Each setting as a row of a markdown table."""
    rows = ["| variable | default | meaning | allowed |", "|---|---|---|---|"]
    for setting in settings:
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.variable}` | {default} | {setting.doc} | {setting.allowed} |")
    return "\n".join(rows)


def _tables() -> str:
    parts = [f"## Tables\n\nAll in the schema `{SCHEMA}`.\n"]
    for table in TABLES:
        rows = [f"| `{name}` | {column.type} | {_cell(column.meaning)} |" for name, column in table.columns.items()]
        parts.append(
            "\n".join(
                [f"### {table.name}\n\n{table.meaning}\n", "| column | type | meaning |", "|---|---|---|", *rows, ""]
            )
        )
    return "\n".join(parts)


def _frames() -> str:
    head = '## Frames\n\nWhat `babylon_assets.load("name", window)` gives in Python, as pandas frames.\n'
    parts = [head]
    for name, columns in FRAMES.items():
        rows = [f"| `{column}` | {_cell(meaning)} |" for column, meaning in columns.items()]
        parts.append("\n".join([f"### load: {name}\n", "| column | meaning |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def _metadata() -> str:
    rows = [f"| `{name}` | {meaning.unit} | {_cell(meaning.doc)} |" for name, meaning in METADATA.items()]
    head = "## Metadata\n\nWhat the assets and their checks say of a partition; Dagster plots the numbers.\n"
    return "\n".join([head, "| name | unit | meaning |", "|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    REFERENCE.write_text(reference())


if __name__ == "__main__":
    main()
