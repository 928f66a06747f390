"""How answers are scored, and who judges them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from babylon_assets.config.group import Group, variable, write_value
from babylon_assets.config.values import ImportPaths, JudgeModel, ServerUrl, Weights


class RewardSettings(Group):
    """How scores become rewards."""

    weights: Weights = variable(
        "REWARD_WEIGHTS",
        "outcome=1.0,heuristic=0.1",
        "The weight of each scorer in a sample's reward. The default leaves out what the environment does not have.",
    )
    scorers: ImportPaths = variable("SCORERS", (), "Your own scorers. REWARD_WEIGHTS may name them.")
    invalid_action_reward: Annotated[float, Ge(-1), Le(1)] = variable(
        "INVALID_ACTION_REWARD", -0.5, "The outcome score of an action that could not be carried out."
    )
    perp_horizon_minutes: Annotated[int, Ge(1)] = variable(
        "PERP_HORIZON_MINUTES", 60, "How many minutes after its trade an open perpetual position is valued."
    )
    perp_full_scale_percent: Annotated[float, Gt(0), Le(1000)] = variable(
        "PERP_FULL_SCALE_PERCENT", 10.0, "The price change, in percent, that counts as a full win or a full loss."
    )
    credit_discount: Annotated[float, Ge(0), Le(1)] = variable(
        "CREDIT_DISCOUNT",
        0.0,
        "How much of the next step's reward a step is credited with, to the end of its tick. `0`: each step has "
        "only its own reward.",
    )
    least_understood: Annotated[float, Ge(0), Le(1)] = variable(
        "LEAST_UNDERSTOOD",
        0.95,
        "The least share of a window's actions, and of its trades, whose words are known. A window below it stops.",
    )

    @property
    def weights_are_default(self) -> bool:
        """Whether nobody set REWARD_WEIGHTS, so that the environment says which scorers have a weight."""
        field = type(self).model_fields["weights"]
        return write_value(field, self.weights) == str(field.default)


class JudgeSettings(Group):
    """Which model judges the answers of a group, for the scorer `ruler`."""

    model: JudgeModel | None = variable(
        "RULER_MODEL", None, "The LLM judge, which compares the answers of a group. Without it no answers are judged."
    )
    url: ServerUrl | None = variable(
        "RULER_URL",
        None,
        "The server of the judge, such as this product's gateway. Without it litellm finds the provider.",
    )
    api_key: str | None = variable(
        "RULER_API_KEY",
        None,
        "The key of the judge. Without it litellm looks for the provider's own variable.",
        secret=True,
    )
    rubric: str | None = variable(
        "RULER_RUBRIC", None, "The rubric that the judge follows. Without it the judge follows ART's."
    )
    json_schema: bool = variable(
        "RULER_JSON_SCHEMA",
        True,
        "Whether the judge gets the JSON schema of its answer. `false` describes the form in words; this "
        "product's gateway needs that.",
    )
    group_size: Annotated[int, Ge(2), Le(64)] = variable(
        "RULER_GROUP_SIZE", 16, "How many answers one request to the judge compares. A larger group is split."
    )
    timeout_seconds: Annotated[int, Ge(1), Le(3600)] = variable(
        "RULER_TIMEOUT_SECONDS", 120, "How many seconds one request to the judge may take."
    )
    usd_per_million_tokens: Annotated[float, Ge(0), Le(1e6)] | None = variable(
        "RULER_USD_PER_MILLION_TOKENS",
        None,
        "The price of a million tokens of the judge in US dollars, where litellm does not know it. Without it what "
        "such a judge costs is not known.",
    )
    write_reward_judgments: bool = variable(
        "WRITE_REWARD_JUDGMENTS", False, "Whether the judge's scores are also written into the game's reward_judgments."
    )
