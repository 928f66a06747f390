"""Making the base model: whole, measured, and refused when it could not learn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.environments.simulated.base_model import Recipe, ensure_base_model, measure
from babylon_assets.serving.engine.engine import Engine

USELESS = Recipe(steps=1, batch=8, hidden=32, feed_forward=64)


def test_a_base_that_does_not_act_on_the_news_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BaseModelRefused, match=r"acts on the news in \d+%.*set BASE_MODEL"):
        ensure_base_model(tmp_path, USELESS, open_policy=Engine)
    assert list((tmp_path / "base_models").iterdir()) == []


def test_a_base_is_made_once_and_another_recipe_is_another_model(tiny_base: Path) -> None:
    home = tiny_base.parent.parent
    recipe = Recipe(**json.loads((tiny_base / "recipe.json").read_text()))
    made = (tiny_base / "model.safetensors").stat().st_mtime_ns
    assert ensure_base_model(home, recipe, open_policy=Engine) == tiny_base
    assert (tiny_base / "model.safetensors").stat().st_mtime_ns == made
    assert ensure_base_model(home, dataclasses.replace(recipe, seed=1), open_policy=Engine) != tiny_base


def test_a_measurement_is_kept_beside_the_model(tiny_base: Path) -> None:
    measured = json.loads((tiny_base / "measurement.json").read_text())
    assert measured["chance"] == pytest.approx(1 / 9)
    assert measured["valid"] < 0.1


def test_teaching_makes_answers_valid(taught_base: Path) -> None:
    assert measure(Engine(taught_base), seed=77, count=64).valid > 0.5


def test_the_tokenizer_keeps_the_ids_that_art_uses_as_sentinels(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    for token in range(len(tokenizer) - 8, len(tokenizer)):
        assert tokenizer.encode(tokenizer.decode(token), add_special_tokens=False) == [token]
