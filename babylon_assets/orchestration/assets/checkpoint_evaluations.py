"""The asset checkpoint_evaluations: how good a window's checkpoint is, beside its parent, the served one and the base.

How it is measured lives in `evaluation`; what the numbers lead to, in `promoted_model`.
"""

from collections.abc import Mapping

import dagster as dg

from babylon_assets.domain.display_text import format_number
from babylon_assets.domain.evaluations import Interval
from babylon_assets.evaluation.window_evaluation import (
    BASE,
    CHECKPOINT,
    PARENT,
    PROMOTED,
    EvaluatedWindow,
    evaluate_window,
)
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets.model_checkpoints import NAME as CHECKPOINTS
from babylon_assets.orchestration.metadata import (
    NO_CHECKPOINT,
    PASSED_THROUGH,
    about_checkpoint,
    declare,
    picture,
    show,
    table,
)
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult
from babylon_assets.report.pictures import MeasuredPolicy, draw_evaluations

NAME = "checkpoint_evaluations"
#: The status of a window whose checkpoint was measured.
MEASURED = "measured"
#: The columns of the table, policies by their role, and its rows, figures by their names in metadata.
ROLES = {CHECKPOINT: "this", PARENT: "its parent", PROMOTED: "served", BASE: "base model"}
FIGURES = {
    "market_reward": "market reward",
    "market_valid_share": "valid share",
    "market_advantage": "share of the oracle's reward",
    "recorded_reward": "recorded reward",
    "recorded_valid_share": "recorded valid share",
    "off_policy_preference": "off-policy preference",
    "off_policy_estimate": "off-policy estimate",
}
#: What is in the table only: ends of intervals.
ENDS = ("_low", "_high")
CHECKS = (checks.MEASURED,)

DESCRIPTION = f"""
How good this window's checkpoint is, beside its parent, the served policy and the base model.

- **Benchmark** of the environment, where it has one: every policy is asked the same, with the same random numbers.
- **Recorded prompts** of the environment, where it can value answers to them: those of held-out agents in the newest
  windows, and of other agents in the windows before this one. `recorded_reward` is the mean reward of what the answers
  would have done, by the environment's record and without price impact. `recorded_gain` is the difference to the worth
  of the recorded answers.
- **Off-policy** on the held-out agents' answers of this window: `off_policy_preference` is how much likelier the better
  answers are than the worse ones, in nats. `off_policy_estimate` is what the policy would have earned, by importance
  weights. It is left out where `off_policy_effective_samples` is too small.

A measurement is made once per checkpoint and kept. A thin window has no checkpoint of its own: it is green, and shows
the others. The check `{checks.MEASURED}` fails when the window's checkpoint was not measured.
"""


def stage(windows: dg.TimeWindowPartitionsDefinition) -> Stage:
    """The asset's declaration, with one partition per window, and what makes one of them."""
    spec = dg.AssetSpec(
        NAME,
        deps=[CHECKPOINTS],
        description=DESCRIPTION,
        kinds={"pytorch", "postgres"},
        tags={"babylon/stage": "evaluate"},
    )
    return Stage(declare(spec), checks.declare_checks(NAME, CHECKS, windows), make=evaluate)


def evaluate(installation: Installation, window: str, _run_id: str | None = None) -> WindowResult:
    """Measure a window's checkpoint and those beside it, and say what they can do."""
    evaluated = evaluate_window(installation.settings, installation.database, window)
    checkpoint = evaluated.checkpoint
    return WindowResult(
        metadata=show(
            {
                "policies": lambda: _policies(evaluated),
                "evaluations": lambda: _picture(evaluated),
                "measurements": lambda: _metadata(evaluated),
            }
        ),
        data_version=checkpoint.id if checkpoint else None,
        checks=[_measured_check(evaluated)],
        made_from={CHECKPOINTS: checkpoint.id} if checkpoint else {},
    )


def _policies(evaluated: EvaluatedWindow) -> dict[str, dg.MetadataValue]:
    """A table of a row for each figure and a column for each policy that was measured, the window's own first."""
    numbers = evaluated.numbers()
    columns = {
        role: name
        for role, name in ROLES.items()
        if any(_figure(numbers, role, figure) is not None for figure in FIGURES)
    }
    rows: list[dict[str, object]] = []
    named = {"figure": "policy", **{name: evaluated.policies.get(role) for role, name in columns.items()}}
    for figure, heading in FIGURES.items():
        rows.append({"figure": heading, **{name: _figure(numbers, role, figure) for role, name in columns.items()}})
        if (measured := {"market_reward": evaluated.market, "recorded_reward": evaluated.recorded}.get(figure)) is None:
            continue
        ends = {name: _ends(measured.get(role)) for role, name in columns.items()}
        rows.append({"figure": f"{heading}, 95% interval", **ends})
        if measured is evaluated.market:
            gains = {name: _interval(evaluated.gain(role)) for role, name in columns.items() if role != CHECKPOINT}
            rows.append({"figure": "this gains on it", **gains})
    known = [row for row in rows if any(row.get(name) is not None for name in columns.values())]
    return {"policies": table([{name: row.get(name) for name in named} for row in (named, *known)])} if known else {}


def _figure(numbers: Mapping[str, float | None], role: str, name: str) -> float | None:
    return numbers.get(name if role == CHECKPOINT else f"{role}_{name}")


def _ends(evaluation: Evaluation | None) -> str | None:
    """The interval of a measurement in words."""
    if evaluation is None or evaluation.low is None or evaluation.high is None:
        return None
    return f"[{format_number(evaluation.low, padded=True)}, {format_number(evaluation.high, padded=True)}]"


def _interval(gain: Interval | None) -> str | None:
    """A gain with its interval in words."""
    if gain is None:
        return None
    shown, *ends = (format_number(number, padded=True) for number in gain)
    return f"{shown} [{', '.join(ends)}]"


def _roles_by_policy(evaluated: EvaluatedWindow) -> dict[str, list[str]]:
    """The roles that each policy has, the window's own first: the parent is often the served one."""
    by_policy: dict[str, list[str]] = {}
    for role in ROLES:
        if role in evaluated.policies:
            by_policy.setdefault(evaluated.policies[role], []).append(role)
    return by_policy


def _picture(evaluated: EvaluatedWindow) -> dict[str, dg.MetadataValue]:
    """What each policy earned in each kind of evaluation; a policy of several roles is there once."""
    panels: dict[str, list[MeasuredPolicy]] = {}
    for kind, evaluations in (
        ("market", evaluated.market),
        ("recorded prompts", evaluated.recorded),
        ("off-policy estimate", evaluated.off_policy),
    ):
        for policy, roles in _roles_by_policy(evaluated).items():
            measured = evaluations.get(roles[0])
            if measured is not None and measured.value is not None:
                label = f"{policy} ({', '.join(ROLES[role] for role in roles)})"
                panels.setdefault(kind, []).append(MeasuredPolicy(label, measured.value, measured.low, measured.high))
    drawn = picture(draw_evaluations(panels), "rewards of the policies") if panels else None
    return {"evaluations": drawn} if drawn else {}


def _why_no_estimates(evaluated: EvaluatedWindow) -> str:
    """Of each policy without an off-policy estimate, why there is none."""
    refused = {
        policy: evaluated.off_policy[roles[0]].results["refused"]
        for policy, roles in _roles_by_policy(evaluated).items()
        if roles[0] in evaluated.off_policy
    }
    return "; ".join(f"{policy}: {why}" for policy, why in refused.items() if why)


def _metadata(evaluated: EvaluatedWindow) -> dict[str, dg.MetadataValue]:
    measured = CHECKPOINT in evaluated.market or CHECKPOINT in evaluated.recorded
    status = MEASURED if measured else PASSED_THROUGH
    text = {"reason": evaluated.unplayable, "no_off_policy_estimate": _why_no_estimates(evaluated)}
    beside = tuple(f"{role}_" for role in ROLES if role != CHECKPOINT)
    numbers = evaluated.numbers().items()
    plotted = {name: value for name, value in numbers if not name.startswith(beside) and not name.endswith(ENDS)}
    return about_checkpoint(evaluated.checkpoint, status, text, plotted)


def _measured_check(evaluated: EvaluatedWindow) -> dg.AssetCheckResult:
    if evaluated.checkpoint is None:
        passed, text = True, NO_CHECKPOINT
    elif evaluated.unplayable is not None:
        passed, text = True, evaluated.unplayable
    else:
        rewards = [
            f"{name} {format_number(evaluation.value, padded=True)}"
            for name, evaluations in (("market reward", evaluated.market), ("recorded reward", evaluated.recorded))
            if (evaluation := evaluations.get(CHECKPOINT)) is not None and evaluation.value is not None
        ]
        passed, text = bool(rewards), ", ".join(rewards) or "nothing was there to measure it on"
    return dg.AssetCheckResult(check_name=checks.MEASURED, passed=passed, description=text)
