"""What runs once a night: evaluating the served policy, pruning weights, removing logs of old runs.

Each is a job of one step, which a person may launch as well; when they run by themselves is decided in `schedules`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from babylon_assets.domain.errors import SettingsError, TrainingBusy
from babylon_assets.domain.policies import policy_name
from babylon_assets.evaluation.nightly import NightlyEvaluation, evaluate_promoted
from babylon_assets.orchestration.assets import checkpoint_evaluations as evaluations
from babylon_assets.orchestration.metadata import about_checkpoint, numbers
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import remove_old_events
from babylon_assets.training.pruning import prune, prune_calls

EVALUATE, PRUNE, UPKEEP = "evaluate_promoted", "prune_weights", "remove_old_logs"


@dg.op(name=EVALUATE)
def evaluate(context: dg.OpExecutionContext, installation: dg.ResourceParam[Installation]) -> None:
    """Evaluates the served policy on NIGHTLY_SEEDS held-out markets and adds the result to its window's evaluations."""
    done = evaluate_promoted(installation.settings, installation.database)
    if done.checkpoint is None or done.evaluation is None:
        context.log.info(f"nothing is evaluated: {done.reason}")
        return
    name = policy_name(done.checkpoint.chain, done.checkpoint.step)
    metadata = _nightly_metadata(done)
    context.add_output_metadata(metadata)
    if not done.fresh:
        context.log.info(f"{name} was evaluated on {done.evaluation.created_at:%Y-%m-%d}: nothing is played again")
    elif done.checkpoint.window_id is not None:
        window = done.checkpoint.window_id
        context.log_event(dg.AssetObservation(evaluations.NAME, partition=window, metadata=metadata))


def _nightly_metadata(done: NightlyEvaluation) -> dict[str, dg.MetadataValue[Any]]:
    evaluation, gain = done.evaluation, done.gain_on_base
    assert evaluation is not None  # there is something to tell
    measured = {
        "market_seeds": len(evaluation.seeds or ()),
        "market_reward": evaluation.value,
        "market_reward_low": evaluation.low,
        "market_reward_high": evaluation.high,
        "market_valid_share": evaluation.results["valid_share"],
        "market_advantage": evaluation.results["advantage"],
        "gain_on_base": gain.value if gain else None,
        "gain_on_base_low": gain.low if gain else None,
        "gain_on_base_high": gain.high if gain else None,
    }
    return about_checkpoint(done.checkpoint, evaluations.MEASURED, {}, measured)


@dg.op(name=PRUNE)
def prune_weights(context: dg.OpExecutionContext, installation: dg.ResourceParam[Installation]) -> None:
    """Removes the weights that nothing needs, as `babylon prune --keep KEEP_CHECKPOINTS` does."""
    keep = installation.settings.automation.keep_checkpoints
    if keep is None:
        raise SettingsError(
            "KEEP_CHECKPOINTS is not set; set it to how many of the newest checkpoints keep their weights"
        )
    try:
        done = prune(installation.settings, installation.database, keep)
        calls = prune_calls(installation.settings, installation.database)
    except TrainingBusy as busy:
        context.log.warning(f"{busy}: nothing is pruned now, the next night comes")
        return
    names = [policy_name(checkpoint.chain, checkpoint.step) for checkpoint in done.checkpoints]
    for checkpoint in done.elsewhere:
        name = policy_name(checkpoint.chain, checkpoint.step)
        context.log.warning(f"{name} is left alone: {checkpoint.path} is not its folder in this home")
    context.log.info(f"removed the weights of {len(names)} checkpoints: {', '.join(names) or 'none'}")
    context.log.info(f"removed the tokens of {calls:,} calls")
    context.add_output_metadata(numbers({"pruned_checkpoints": len(names), "freed_bytes": done.size}))


@dg.op(name=UPKEEP)
def remove_old_logs(context: dg.OpExecutionContext, installation: dg.ResourceParam[Installation]) -> None:
    """Removes logs of runs that ended KEEP_RUN_LOGS_DAYS ago. What they made and checked and why they failed stays."""
    days = installation.settings.automation.keep_run_logs_days
    removed = remove_old_events(context.instance, datetime.now(UTC) - timedelta(days=days))
    context.log.info(f"removed {removed:,} events of runs that are older than {days} days")
    context.add_output_metadata(numbers({"removed_events": removed}))


def build_nightly_jobs() -> list[dg.JobDefinition]:
    """A job for each."""
    return [_job(op) for op in (evaluate, prune_weights, remove_old_logs)]


def _job(op: dg.OpDefinition) -> dg.JobDefinition:
    return dg.GraphDefinition(name=f"nightly_{op.name}", node_defs=[op], description=op.description).to_job()
