"""The README is short, and its map and its commands are what is there."""

from __future__ import annotations

import re

from typer.main import get_command

from babylon_assets.cli.app import app
from tools.readme import README, fill_block, source_map

TEXT = README.read_text()


def test_it_is_read_in_a_few_minutes() -> None:
    assert 8_000 <= len(README.read_bytes()) <= 10_240


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"^babylon (\w+)", TEXT, flags=re.MULTILINE))
    assert shown
    assert shown <= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_the_map_has_every_folder_with_its_first_sentence() -> None:
    assert fill_block(TEXT, "map", source_map()) == TEXT, "run: python -m tools.readme"
