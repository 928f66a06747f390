"""The README says what is true."""

from __future__ import annotations

import re

from typer.main import get_command

from babylon_assets.cli import app
from docs.readme import README, filled, settings_table

TEXT = README.read_text()


def test_every_setting_is_documented_as_it_is_declared() -> None:
    assert filled(TEXT, "settings", settings_table()) == TEXT, "run: python -m docs.readme"


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"^babylon (\w+)", TEXT, flags=re.MULTILINE))
    assert shown
    assert shown <= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_path_of_the_map_exists() -> None:
    block = TEXT.split("## The map")[1].split("```")[1]
    paths = [re.match(r"(  )?(\S+)", line) for line in block.strip("\n").splitlines()]
    root = README.parent
    inside = False
    for found in filter(None, paths):
        indent, name = found.groups()
        inside = indent is not None if name != "babylon_assets/" else inside
        for one in name.rstrip(",").split(","):
            assert ((root / "babylon_assets" / one) if indent else (root / one)).exists(), one


def test_every_picture_exists() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    assert [path for path in pictures if not (README.parent / path).is_file()] == []
