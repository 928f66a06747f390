"""Base models for tests: one that knows nothing, and one that was taught for some seconds.

Each is made once and lies where all workers of a session find it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.environments.simulated.base_model import Recipe, ensure_base_model
from babylon_assets.serving.engine.engine import Engine

prepare_libraries(Settings())


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with a tokenizer and a chat template that has learned nothing."""
    return _ensure_once(
        tmp_path_factory, Recipe(steps=1, batch=16, hidden=32, feed_forward=64, least_signal=0, least_valid=0)
    )


@pytest.fixture(scope="session")
def taught_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that answers in the format, mostly; whether it acts on the news is not asked."""
    return _ensure_once(tmp_path_factory, Recipe(steps=60, batch=32, least_signal=0, least_valid=0.5))


def _ensure_once(folders: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """The model of a recipe, which the first worker that needs it makes and others wait for."""
    home = folders.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent
    with (home / f"base_model_{recipe.steps}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return ensure_base_model(home, recipe, open_policy=Engine)
