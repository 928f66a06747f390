"""Base models for tests, made once a session: one that knows nothing, and one that was taught for some seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings, prepare_libraries
from babylon_assets.environments.simulated.base_model import Recipe, ensure_base_model
from babylon_assets.serving.engine.engine import Engine

prepare_libraries(Settings())


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with a tokenizer and a chat template that has learned nothing."""
    home = tmp_path_factory.mktemp("tiny")
    return ensure_base_model(
        home, Recipe(steps=1, batch=16, hidden=32, feed_forward=64, least_signal=0, least_valid=0), open_policy=Engine
    )


@pytest.fixture(scope="session")
def taught_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that answers in the format, mostly; whether it acts on the news is not asked."""
    home = tmp_path_factory.mktemp("taught")
    return ensure_base_model(home, Recipe(steps=60, batch=32, least_signal=0, least_valid=0.5), open_policy=Engine)
