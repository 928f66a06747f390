"""How answers are scored, and who judges them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from babylon_assets.config.group import Group, variable
from babylon_assets.config.values import ImportPaths, JudgeModel, ServerUrl, Weights


class RewardSettings(Group):
    """How scores become rewards."""

    weights: Weights = variable(
        "REWARD_WEIGHTS", "outcome=1.0,heuristic=0.1", "Weight of each scorer in a sample's reward."
    )
    scorers: ImportPaths = variable("SCORERS", (), "Scorers of your own, that REWARD_WEIGHTS may name as well.")
    invalid_action_reward: Annotated[float, Ge(-1), Le(1)] = variable(
        "INVALID_ACTION_REWARD", -0.5, "Outcome score of an action that could not be carried out."
    )
    perp_horizon_minutes: Annotated[int, Ge(1)] = variable(
        "PERP_HORIZON_MINUTES", 60, "When an open perpetual position is valued, in minutes after its trade."
    )
    perp_full_scale_percent: Annotated[float, Gt(0), Le(1000)] = variable(
        "PERP_FULL_SCALE_PERCENT", 10.0, "Price change that counts as a full win or loss."
    )


class JudgeSettings(Group):
    """Which model judges the answers of a group, for the scorer `ruler`."""

    model: JudgeModel | None = variable(
        "RULER_MODEL", None, "Model that judges the answers of a group against each other; absent: nobody judges."
    )
    url: ServerUrl | None = variable(
        "RULER_URL", None, "Where the judge answers, such as our own gateway; absent: where litellm finds its provider."
    )
    api_key: str | None = variable(
        "RULER_API_KEY", None, "Key of the judge; absent: what litellm finds for its provider.", secret=True
    )
    rubric: str | None = variable("RULER_RUBRIC", None, "What the judge goes by; absent: ART's own rubric.")
    json_schema: bool = variable(
        "RULER_JSON_SCHEMA",
        True,
        "Send the judge the JSON schema of its answer; false, as for our own gateway: ask for the form in words.",
    )
    group_size: Annotated[int, Ge(2), Le(64)] = variable(
        "RULER_GROUP_SIZE", 16, "Of a larger group, so many answers are judged in one request."
    )
    max_attempts: Annotated[int, Ge(1), Le(100)] = variable(
        "RULER_MAX_ATTEMPTS",
        9,
        "How often a judge is asked about one group, over all runs; three times at most in one.",
    )
    timeout_seconds: Annotated[int, Ge(1), Le(3600)] = variable(
        "RULER_TIMEOUT_SECONDS", 120, "How long one request to the judge may take."
    )
    usd_per_million_tokens: Annotated[float, Ge(0), Le(1e6)] | None = variable(
        "RULER_USD_PER_MILLION_TOKENS", None, "What a million tokens of the judge cost, where litellm does not know."
    )
    write_reward_judgments: bool = variable(
        "WRITE_REWARD_JUDGMENTS", False, "Write the judge's verdicts into the game's reward_judgments as well."
    )
