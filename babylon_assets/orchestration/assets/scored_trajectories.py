"""The asset scored_trajectories: what each step of a window was worth.

How it is scored is in `scoring`; the rules live in `environments.babylon.outcomes`, `domain.rewards` and
`domain.llm_judge`.
"""

import dagster as dg
import pandas as pd

from babylon_assets.domain.content_ids import bytes_id
from babylon_assets.domain.display_text import format_scorers
from babylon_assets.domain.site_links import link_samples
from babylon_assets.domain.understanding import Understanding
from babylon_assets.environments.base import Environment
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets.raw_trajectories import NAME as RAW
from babylon_assets.orchestration.metadata import declare, harmless_text, numbers, picture, show, site_page, texts
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult
from babylon_assets.orchestration.scoring import ScoredWindow, score_window
from babylon_assets.orchestration.source_tables import OUTCOMES, source_key
from babylon_assets.report.pictures import draw_rewards

NAME = "scored_trajectories"
CHECKS = (checks.REWARD_RANGE, checks.UNDERSTOOD)

DESCRIPTION = f"""
How good each step of this window was.

- `outcome` is what the step's own action turned out to be worth, in [-1, 1], by the environment's record. An action
  that could not be carried out scores low.
- `format` says whether the action could be carried out.
- `ruler` is how an LLM judge ranks the answers of a group (RULER_MODEL). A group that could not be judged has no score
  and is asked about again, nine times in all.
- The environment may add scorers of its own, and SCORERS adds yours. `scorers` names all that were used.
- `reward` is the weighted sum (REWARD_WEIGHTS). It is unknown while a score with a weight is unknown.

An outcome that is **not known yet** is left open, not counted as 0. Materialize the partition again to fill it in: the
scores get a new **revision**, and the old one is kept.

What was **understood** is counted: actions whose words are known. A word that is not known is named, and what it stands
for has no worth.

The check `{checks.UNDERSTOOD}` stops a window of which too little is understood (LEAST_UNDERSTOOD).
The check `{checks.REWARD_RANGE}` warns when all rewards are equal.
"""


def stage(windows: dg.TimeWindowPartitionsDefinition, environment: Environment) -> Stage:
    """The asset's declaration, with one partition per window, and what makes one of them."""
    spec = dg.AssetSpec(
        NAME,
        deps=[RAW, source_key(environment, OUTCOMES)],
        description=DESCRIPTION,
        kinds={"postgres", "pandas"},
        tags={"babylon/stage": "score"},
    )
    return Stage(declare(spec), checks.declare_checks(NAME, CHECKS, windows), make=score)


def score(installation: Installation, window: str, _run_id: str | None = None) -> WindowResult:
    """Score a window and say how good it was."""
    scored = score_window(installation, window)
    scores, versions = scored.scores, dict(scored.versions)
    known = scores["reward"].dropna()
    return WindowResult(
        metadata=show(
            {
                "rewards": lambda: picture(draw_rewards(scores["reward"].tolist(), "Rewards of the steps"), "rewards"),
                "scores": lambda: _metadata(window, scores, versions),
                "changes": lambda: _changes(scored),
                "understanding": lambda: _understood(scored.understanding),
            }
        ),
        data_version=_version(scores, versions),
        checks=[
            checks.reward_range(known.tolist()),
            checks.understood(scored.understanding, installation.settings.rewards.least_understood),
        ],
    )


def _understood(understanding: Understanding) -> dict[str, dg.MetadataValue]:
    """How much of the window was understood, and the words that were not."""
    names = {"linked": "trades_linked", "valued": "trades_valued", "pending": "trades_pending"}
    counts = {names.get(name, name): count for name, count in understanding.counts.items() if name != "actions"}
    return {
        **numbers({"understood_share": understanding.share, **counts}),
        **texts({"unknown_words": harmless_text(understanding.list_words())}),
    }


def _changes(scored: ScoredWindow) -> dict[str, dg.MetadataValue]:
    """Which revision the scores are, what changed with it, and what a judge did and cost."""
    revision = scored.revision
    return {
        **numbers(
            {"revision": revision.revision, "changed_trajectories": revision.trajectories, **scored.judge_numbers}
        ),
        **texts({"changed_scorers": ", ".join(revision.scorers), "judge_failures": "; ".join(scored.failures)}),
    }


def _version(scores: pd.DataFrame, versions: dict[str, str]) -> str:
    """Names the rewards of a window's steps and what gave them; the same rewards have the same name."""
    rows = [name.encode() for name in scores["trajectory_id"]]
    numbers_of = [scores[column].to_numpy(dtype=float).tobytes() for column in ("step", "reward")]
    return bytes_id([repr(sorted(versions.items())).encode(), *rows, *numbers_of])


def _metadata(window: str, scores: pd.DataFrame, versions: dict[str, str]) -> dict[str, dg.MetadataValue]:
    reward = scores["reward"]
    known = int(reward.notna().sum())
    states = scores["state"].value_counts()
    return {
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
        "site_page": site_page(link_samples(window=window)),
        **texts({"scorers": format_scorers(f"{name}@{version}" for name, version in versions.items())}),
    }
