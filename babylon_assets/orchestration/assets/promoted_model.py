"""The asset promoted_model: whether a window's checkpoint is served from now on, and trained from.

The rules are in `domain.gates`, carrying them out is in `evaluation.gate_runner`.
"""

from dataclasses import dataclass
from functools import partial

import dagster as dg

from babylon_assets.domain.policies import policy_name
from babylon_assets.evaluation.deployment import tell_game
from babylon_assets.evaluation.gate_runner import GateDecision, decide
from babylon_assets.evaluation.served_results import measure_served, roll_back_if_needed
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.promotions import Promotion
from babylon_assets.orchestration.assets.checkpoint_evaluations import NAME as EVALUATIONS
from babylon_assets.orchestration.checks import per_window
from babylon_assets.orchestration.metadata import NO_CHECKPOINT, about_checkpoint, declared
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime.ranges import Outputs, WindowResult, run_windows

NAME = "promoted_model"
GATE_CHECK = "gate"

DESCRIPTION = f"""
The gate: this window's checkpoint is promoted, or rejected.

- The gate rejects a checkpoint that is worse than the served one with confidence, that declined from the best so far,
  that prefers the better held-out answers less, whose share of valid actions fell, whose training was not finite, or
  whose window was thin or corrupt. Every finding is kept with the verdict, and so are the rules.
- A rejected checkpoint stays in the ledger with its name. It is not served, and the next window trains from the served
  one.
- Rows of `promotions` are only added. A rollback is a row like a promotion. `babylon promotions --at TIME` says which
  policy was served then.

A thin window is green and changes nothing. The check `{GATE_CHECK}` warns of a rejection, with the reasons.
"""


@dataclass(frozen=True, slots=True)
class PromotionOutcome:
    """What became of a window: the verdict, the rollback if there was one, and what is live now."""

    judged: GateDecision | None
    rolled_back: Promotion | None
    live: Checkpoint | None
    inference_name: str | None


def build_promoted_model(windows_partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset, with one partition per window."""

    spec = dg.AssetSpec(
        NAME,
        deps=[EVALUATIONS],
        description=DESCRIPTION,
        kinds={"postgres", "python"},
        tags={"babylon/stage": "promote"},
    )
    about = "The window's checkpoint was promoted, or it has none."

    @dg.multi_asset(
        name=NAME,
        specs=[declared(spec)],
        check_specs=[per_window(NAME, GATE_CHECK, about, windows_partitions)],
        partitions_def=windows_partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def promoted_model(context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]) -> Outputs:
        yield from run_windows(context, installation, {NAME: partial(promote, installation, context.run_id)})

    return promoted_model


def promote(installation: Installation, run_id: str, window: str) -> WindowResult:
    """Judge a window's checkpoint, and say what is live."""
    outcome = promote_window(installation, window, run_id)
    judged = outcome.judged
    return WindowResult(
        metadata=_metadata(installation, outcome),
        data_version=outcome.live.id if outcome.live else None,
        checks=[_gate_check(outcome)],
        made_from={EVALUATIONS: judged.checkpoint.id} if judged else {},
    )


def promote_window(installation: Installation, window: str, run_id: str | None) -> PromotionOutcome:
    """Apply the gate to a window's checkpoint, go back if the live one left its band, and tell the game."""
    settings, database = installation.settings, installation.database
    rolled_back = roll_back_if_needed(settings, database, run_id)
    with installation.connect() as conn:
        made = checkpoints.by_window(conn, settings.model_name, window)
    judged = decide(settings, database, made, run_id) if made is not None else None
    named = tell_game(settings, database)
    with installation.connect() as conn:
        live = promotions.promoted(conn, settings.model_name)
    return PromotionOutcome(judged, rolled_back, live, named)


def _metadata(installation: Installation, outcome: PromotionOutcome) -> dict[str, dg.MetadataValue]:
    judged, live = outcome.judged, outcome.live
    with installation.connect() as conn:
        seen = measure_served(conn, live) if live is not None else None
    return about_checkpoint(
        judged.checkpoint if judged else None,
        "promoted" if judged and judged.passed else "refused",
        {
            "why": judged.why if judged else None,
            "live": policy_name(live.chain, live.step) if live else None,
            "rolled_back": outcome.rolled_back.why if outcome.rolled_back else None,
            "trained_models": outcome.inference_name,
        },
        {
            "promoted": int(judged.passed) if judged else None,
            "live_step": live.step if live else None,
            "live_answers": seen.answers if seen else None,
            "live_valid_share": seen.valid if seen and seen.answers else None,
            "live_reward": seen.reward if seen else None,
        },
    )


def _gate_check(outcome: PromotionOutcome) -> dg.AssetCheckResult:
    judged = outcome.judged
    return dg.AssetCheckResult(
        check_name=GATE_CHECK,
        passed=judged is None or judged.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=judged.why if judged else NO_CHECKPOINT,
    )
