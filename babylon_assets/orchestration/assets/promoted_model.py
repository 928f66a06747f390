"""The asset promoted_model: whether a window's checkpoint is served from now on, and trained from.

The rules are in `domain.gates`, carrying them out is in `evaluation.gate_runner`.
"""

import dagster as dg

from babylon_assets.domain.checkpoint_states import PROMOTED, REJECTED
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.site_links import link_report
from babylon_assets.domain.verdict_table import explain_decision, verdict_cells
from babylon_assets.evaluation.gate_runner import GateDecision
from babylon_assets.evaluation.served_results import measure_served
from babylon_assets.evaluation.window_promotion import PromotionOutcome, promote_window
from babylon_assets.ledger import verdicts
from babylon_assets.ledger.verdicts import StoredVerdict
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets.checkpoint_evaluations import NAME as EVALUATIONS
from babylon_assets.orchestration.metadata import NO_CHECKPOINT, about_checkpoint, declare, show, site_page, table
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult

NAME = "promoted_model"
CHECKS = (checks.GATE,)

DESCRIPTION = f"""
The gate: this window's checkpoint is promoted, or rejected.

- The gate rejects a checkpoint that is worse than the served one with confidence, that declined from the best so far,
  that prefers the better held-out answers less, whose share of valid actions fell, whose training was not finite, or
  whose window was thin or corrupt. Every finding is kept with the verdict, and so are the rules.
- A rejected checkpoint stays in the ledger with its name. It is not served, and the next window trains from the served
  one.
- Rows of `promotions` are only added. A rollback is a row like a promotion. `babylon promotions --at TIME` says which
  policy was served then.

A thin window is green and changes nothing. The check `{checks.GATE}` warns of a rejection, with the reasons.
"""


def stage(windows: dg.TimeWindowPartitionsDefinition) -> Stage:
    """The asset's declaration, with one partition per window, and what makes one of them."""
    spec = dg.AssetSpec(
        NAME,
        deps=[EVALUATIONS],
        description=DESCRIPTION,
        kinds={"postgres", "python"},
        tags={"babylon/stage": "promote"},
    )
    return Stage(declare(spec), checks.declare_checks(NAME, CHECKS, windows), make=promote)


def promote(installation: Installation, window: str, run_id: str) -> WindowResult:
    """Ask the gate about a window's checkpoint, and say what is served."""
    outcome = promote_window(installation.settings, installation.database, window, run_id)
    judged = outcome.judged
    return WindowResult(
        metadata=show(
            {
                "decision": lambda: _metadata(installation, outcome),
                "verdict": lambda: _verdict(installation, outcome),
                "report": lambda: {"report_page": site_page(link_report())},
            }
        ),
        data_version=outcome.served.id if outcome.served else None,
        checks=[_gate_check(outcome)],
        made_from={EVALUATIONS: judged.checkpoint.id} if judged else {},
    )


def _metadata(installation: Installation, outcome: PromotionOutcome) -> dict[str, dg.MetadataValue]:
    judged, served = outcome.judged, outcome.served
    with installation.connect() as conn:
        kept = verdicts.verdict_on(conn, judged.checkpoint.id) if judged else None
        seen = measure_served(conn, served) if served is not None else None
    return about_checkpoint(
        judged.checkpoint if judged else None,
        PROMOTED if judged and judged.passed else REJECTED,
        {
            "why": _explain(judged, kept),
            "served": policy_name(served.chain, served.step) if served else None,
            "rolled_back": outcome.rolled_back.why if outcome.rolled_back else None,
            "trained_models": outcome.inference_name,
        },
        {
            "promoted": int(judged.passed) if judged else None,
            "served_step": served.step if served else None,
            "served_answers": seen.answers if seen else None,
            "served_valid_share": seen.valid if seen and seen.answers else None,
            "served_reward": seen.reward if seen else None,
        },
    )


def _explain(judged: GateDecision | None, kept: StoredVerdict | None) -> str | None:
    """What the gate decided, in a sentence; every finding is in the table below it."""
    return None if judged is None else explain_decision(judged.why, kept.verdict if kept else None)


def _verdict(installation: Installation, outcome: PromotionOutcome) -> dict[str, dg.MetadataValue]:
    """Every rule of the gate, with what it came to; nothing for a checkpoint that the gate was not asked about."""
    if outcome.judged is None:
        return {}
    with installation.connect() as conn:
        kept = verdicts.verdict_on(conn, outcome.judged.checkpoint.id)
    return {} if kept is None else {"verdict": table(verdict_cells(kept.verdict))}


def _gate_check(outcome: PromotionOutcome) -> dg.AssetCheckResult:
    judged = outcome.judged
    return dg.AssetCheckResult(
        check_name=checks.GATE,
        passed=judged is None or judged.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=judged.why if judged else NO_CHECKPOINT,
    )
