"""The note beside a simulated game, in its home folder, of what it was begun with and must go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babylon_assets.config.settings import Settings

_NAME = "game.json"


def read_game(home: Path) -> dict[str, Any]:
    """What the game of a home folder was begun with; empty where none was."""
    path = home / _NAME
    return json.loads(path.read_text()) if path.is_file() else {}


def go_on_with_game(settings: Settings) -> Settings:
    """The settings as they were read, and where they say nothing of the game, what it was begun with."""
    simulation = settings.simulation
    unsaid = {f"simulation_{name}" for name in set(type(simulation).model_fields) - simulation.model_fields_set}
    return settings.replace(**{name: value for name, value in read_game(settings.home).items() if name in unsaid})


def note_game(home: Path, begun_with: Mapping[str, Any]) -> None:
    """Note what the game is begun with; what was noted before and is not given stays."""
    (home / _NAME).write_text(json.dumps(read_game(home) | dict(begun_with)))


def read_base_model(home: Path) -> Path | None:
    """The folder of the base model that the game was begun with, if it is there."""
    folder = read_game(home).get("base_model")
    return Path(folder) if folder and Path(folder).is_dir() else None
