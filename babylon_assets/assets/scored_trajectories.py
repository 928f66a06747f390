"""The asset scored_trajectories: what each step of a window was worth.

The rules of scoring live in `core.outcomes` and `core.rewards`.
"""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from babylon_assets.assets import checks
from babylon_assets.assets.collector import without_collector
from babylon_assets.assets.facts import numbers, picture, texts
from babylon_assets.assets.installation import Installation
from babylon_assets.assets.ranges import Made
from babylon_assets.assets.raw_trajectories import NAME as RAW
from babylon_assets.core import rewards
from babylon_assets.core.lineage import bytes_id
from babylon_assets.game import outcomes
from babylon_assets.plots import reward_histogram
from babylon_assets.store import scores as score_ledger
from babylon_assets.store import trajectories

NAME = "scored_trajectories"
CHECKS = (checks.SPREAD,)

DESCRIPTION = f"""
How good each step of this hour was.

- `outcome`: what the step's own trade turned out to be worth, in [-1, 1]. A prediction share is worth what it paid less
  what it cost; a perpetual is worth its return. An action that could not be carried out scores low.
- `heuristic`: the game's own formula per agent (P&L of the window, share of trades won, activity), in [0, 1].
- `reward` is their weighted sum; the weights are a setting (REWARD_WEIGHTS).

An outcome that is **not known yet** is left open rather than counted as 0, and is filled in when the partition is
materialized again. The check `{checks.SPREAD}` warns when all rewards are equal.
"""


def spec() -> dg.AssetSpec:
    """The asset's declaration."""
    return dg.AssetSpec(
        NAME,
        deps=[RAW],
        description=DESCRIPTION,
        kinds={"postgres", "pandas"},
        tags={"babylon/stage": "score"},
    )


def score(installation: Installation, window: str) -> Made:
    """Score a window and say how good it was."""
    versions = rewards.versions(installation.settings.reward_weights)
    scores = score_window(installation, window)
    known = scores["reward"].dropna()
    return Made(
        metadata=_metadata(scores, versions),
        data_version=_version(scores, versions),
        checks=[checks.reward_spread(len(known), float(known.std(ddof=0)) if len(known) else None)],
    )


def _version(scores: pd.DataFrame, versions: dict[str, str]) -> str:
    """Names the rewards of a window's steps and what gave them; the same rewards have the same name."""
    rows = [name.encode() for name in scores["trajectory_id"]]
    numbers_of = [scores[column].to_numpy(dtype=float).tobytes() for column in ("step", "reward")]
    return bytes_id([repr(sorted(versions.items())).encode(), *rows, *numbers_of])


@without_collector
def score_window(installation: Installation, window: str) -> pd.DataFrame:
    """Score every step that is kept of a window with what is known of it by now, and keep the scores."""
    settings = installation.settings
    with installation.connect() as conn:
        steps = trajectories.read_steps(conn, window)
        known = outcomes.read_outcomes(conn, window, steps, horizon_minutes=settings.perp_horizon_minutes)
        scores = rewards.score_window(
            steps,
            known,
            weights=settings.reward_weights,
            invalid_reward=settings.invalid_action_reward,
            as_of=datetime.now(UTC),
            horizon_minutes=settings.perp_horizon_minutes,
            full_scale_percent=settings.perp_full_scale_percent,
        )
        score_ledger.replace_scores(conn, window, scores, rewards.versions(settings.reward_weights))
    return scores


def _metadata(scores: pd.DataFrame, versions: dict[str, str]) -> dict[str, dg.MetadataValue]:
    reward = scores["reward"]
    known = int(reward.notna().sum())
    states = scores["state"].value_counts()
    return {
        "rewards": picture(reward_histogram(reward.tolist(), "Rewards of the steps"), "rewards of the steps"),
        **numbers(
            {
                "steps": len(scores),
                "known": known,
                "pending": int(states.get("pending", 0)),
                "invalid": int(states.get("invalid", 0)),
                "valid_share": 1 - float(states.get("invalid", 0)) / len(scores) if len(scores) else None,
                "reward_mean": float(reward.mean()) if known else None,
                "reward_std": float(reward.std(ddof=0)) if known else None,
            }
        ),
        **texts({"scorers": ", ".join(f"{name} v{version}" for name, version in versions.items())}),
    }
