"""The project's own small base model: made on first use, measured, and refused if it could not learn.

A Qwen2-architecture model of about half a million parameters is taught the format of orders by imitating an expert that
mostly acts at random. It is made from a seed in about a minute on one core and kept under the home folder in a
folder named after its recipe, so that another recipe is another model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.domain.policies import Policy
from babylon_assets.environments.building_folders import building
from babylon_assets.environments.simulated.demonstrations import draw_demonstrations
from babylon_assets.environments.simulated.language import ANSWER_TOKENS, InvalidOrderError, parse_order
from babylon_assets.environments.simulated.market import legal_orders, news_order
from babylon_assets.environments.small_models import ModelRecipe, Progress, make_small_model


@dataclass(frozen=True, slots=True)
class Recipe(ModelRecipe):
    """Everything that decides what the base model becomes; its hash names the folder."""

    version: int = 1
    #: A base that acts on the news less often than this many times chance is refused: it would not learn.
    least_signal: float = 1.8
    #: Share of its answers that must be orders that can be carried out.
    least_valid: float = 0.9


@dataclass(frozen=True, slots=True)
class BaseModelMeasurement:
    """What a base model does on boards that it has not seen, sampled at temperature 1."""

    answers: int
    valid: float
    on_news: float
    chance: float


def ensure_base_model(
    home: Path,
    recipe: Recipe | None = None,
    *,
    open_policy: Callable[[Path], Policy],
    progress: Progress | None = None,
) -> Path:
    """Return the folder of the base model, making it if it is not there yet.

    Args:
        open_policy: answers with a model's folder; what was made is measured with it.

    The folder appears by a rename when it is complete, so a killed process leaves nothing that looks like a model.

    Raises:
        BaseModelRefused: what was made answers invalidly, or acts on the news no more often than chance.
    """
    recipe = recipe or Recipe()
    folder = home / "base_models" / f"babylon-small-{content_id(asdict(recipe))[:12]}"
    if was_taught(folder):
        return folder
    with building(folder) as beside:
        _make(recipe, beside, open_policy, progress)
    return folder


def was_taught(folder: Path) -> bool:
    """Whether a folder is a base model that was made here, taught the game and measured."""
    return (folder / "measurement.json").is_file()


def _make(recipe: Recipe, folder: Path, open_policy: Callable[[Path], Policy], progress: Progress | None) -> None:
    demonstrations = list(draw_demonstrations(recipe.seed, recipe.steps * recipe.batch))
    make_small_model(recipe, demonstrations, folder, progress)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    measurement = measure(open_policy(folder), seed=recipe.seed + 1)
    _refuse_unless_learnable(measurement, recipe)
    (folder / "measurement.json").write_text(json.dumps(asdict(measurement), indent=2))


def measure(policy: Policy, seed: int, count: int = 512) -> BaseModelMeasurement:
    """Sample `count` answers on unseen boards and see how many are valid and how many act on the news."""
    demonstrations = list(draw_demonstrations(seed, count))
    completions = policy.complete(
        [demonstration.messages for demonstration in demonstrations], range(count), max_tokens=ANSWER_TOKENS
    )
    valid = on_news = 0
    chance = sum(1 / len(legal_orders(demonstration.board)) for demonstration in demonstrations) / count
    for demonstration, completion in zip(demonstrations, completions, strict=True):
        try:
            order = parse_order(completion.text, demonstration.board)
        except InvalidOrderError:
            continue
        valid += 1
        on_news += order == news_order(demonstration.board)
    return BaseModelMeasurement(count, valid / count, on_news / count, chance)


def _refuse_unless_learnable(measured: BaseModelMeasurement, recipe: Recipe) -> None:
    if measured.valid >= recipe.least_valid and measured.on_news >= recipe.least_signal * measured.chance:
        return
    raise BaseModelRefused(
        f"the base model made by {recipe} answers validly in {measured.valid:.0%} of cases (at least "
        f"{recipe.least_valid:.0%} is needed) and acts on the news in {measured.on_news:.0%} (chance is "
        f"{measured.chance:.0%}, at least {recipe.least_signal} times that is needed): it could not learn. "
        "Make it with more steps or another seed, or set BASE_MODEL to a model of your own."
    )
