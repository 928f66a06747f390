"""The README says what is true."""

from __future__ import annotations

import re

from docs.readme import README, filled, settings_table, source_map
from typer.main import get_command

from babylon_assets.cli.app import app

TEXT = README.read_text()


def test_every_setting_is_documented_as_it_is_declared() -> None:
    assert filled(TEXT, "settings", settings_table()) == TEXT, "run: python -m docs.readme"


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"^babylon (\w+)", TEXT, flags=re.MULTILINE))
    assert shown
    assert shown <= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_the_map_has_every_module_with_its_first_sentence() -> None:
    assert filled(TEXT, "map", source_map()) == TEXT, "run: python -m docs.readme"


def test_every_path_that_is_named_exists() -> None:
    table = TEXT.split("## The map")[1].split("<!-- map -->")[0]
    paths = [path for path in re.findall(r"`([^`]+)`", table) if path.endswith(("/", ".txt", ".yaml", "file"))]
    assert len(paths) >= 8
    assert [path for path in paths if not (README.parent / path).exists()] == []


def test_every_picture_exists() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert pictures
    assert [path for path in pictures if not (README.parent / path).is_file()] == []
