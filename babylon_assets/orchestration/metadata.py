"""What the assets have in common: group, owners, the columns of their tables, the names and forms of their metadata.

Numbers are plain ints and floats, because Dagster plots those over the partitions; what is not known is left out. A
name stays what it is, and one name means one thing in every asset. The documentation is printed from here, and a test
holds every run of the tests' games to it. What one asset shows of its window lives in the asset's module.
"""

from __future__ import annotations

import base64
import logging
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NamedTuple

import dagster as dg

from babylon_assets.domain.display_text import (
    as_number,
    format_number,
    neutralize,
    neutralize_line,
    round_number,
    shorten,
    shorten_id,
)
from babylon_assets.domain.errors import explain_failure
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.site_links import link_checkpoint, link_partition
from babylon_assets.ledger import specification
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.table import Table

GROUP = "babylon"
OWNERS = ["team:babylon"]
CODE_VERSION = "1"
FRAMES = "frames"
#: Characters of one text, and of one entry of any kind: an event that is larger makes the run's page slow.
LONGEST_TEXT, MOST_CHARACTERS = 2000, 500_000
NOT_SHOWN = "not_shown"
#: What a person asks first of a window, in this order; the rest follows as its asset gives it.
FIRST = (
    *("status", "reason", "why", "checkpoint", "checkpoint_id", "parent", "served", NOT_SHOWN),
    *("site_page", "reward_mean", "samples", "trainable_samples", "trainable_tokens", "verdict"),
    *("policies", "no_off_policy_estimate", "evaluations", "best_and_worst"),
)
_log = logging.getLogger(__name__)
#: The table whose columns an asset's page shows.
TABLE_OF = {
    "raw_trajectories": specification.RAW_TRAJECTORIES,
    "scored_trajectories": specification.TRAJECTORY_SCORES,
    "training_datasets": specification.TRAINING_DATASET_SAMPLES,
    "model_checkpoints": specification.MODEL_CHECKPOINTS,
    "checkpoint_evaluations": specification.CHECKPOINT_EVALUATIONS,
    "promoted_model": specification.PROMOTIONS,
}
#: A window that has no checkpoint of its own, in metadata and in the words of a check.
PASSED_THROUGH, NO_CHECKPOINT = "passed through", "the window has no checkpoint of its own"


def declare(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset's declaration with what all assets have in common: its frames, and its table with each column."""
    common = spec.replace_attributes(group_name=GROUP, owners=OWNERS, code_version=CODE_VERSION)
    return common.merge_attributes(metadata=_columns(TABLE_OF[spec.key.to_user_string()])).with_io_manager_key(FRAMES)


def _columns(table: Table) -> dict[str, Any]:
    """The metadata by which Dagster shows a table's name and its columns with their meanings."""
    columns = [
        dg.TableColumn(
            name,
            column.type,
            description=column.meaning,
            constraints=dg.TableColumnConstraints(nullable=table.view or column.null),
        )
        for name, column in table.columns.items()
    ]
    named = f"{table.schema}.{table.name}"
    return {"dagster/table_name": named, "dagster/column_schema": dg.TableSchema(columns)}


Shown = dg.MetadataValue[Any]


@contextmanager
def only_shown(what: str) -> Iterator[None]:
    """What fails in this block is only shown: the log has the error, and nothing else depends on it."""
    try:
        yield
    except Exception:
        _log.warning("%s cannot be shown\n%s", what, neutralize(traceback.format_exc()))


def show(parts: Mapping[str, Callable[[], Shown | Mapping[str, Shown]]]) -> dict[str, Shown]:
    """The metadata that the parts give, each by its name or as several entries of their own.

    This is where it is made sure that nothing that is only shown fails a window: a part that cannot be made, or is too
    large, is left out; `not_shown` says why, and the log has the error.
    """
    entries: dict[str, Shown] = {}
    reasons: dict[str, str] = {}
    for name, part in parts.items():
        with only_shown(name):
            try:
                result = part()
                entries |= result if isinstance(result, Mapping) else {name: result}
            except Exception as error:
                reasons[name] = explain_failure(error)
                raise
    sizes = {name: len(repr(value)) for name, value in entries.items()}
    reasons |= {name: f"{size:,} characters are too many" for name, size in sizes.items() if size > MOST_CHARACTERS}
    entries = {name: value for name, value in entries.items() if name not in reasons}
    entries |= texts({NOT_SHOWN: "\n".join(f"{name}: {reason}" for name, reason in reasons.items())})
    asked_first = {name: entries[name] for name in FIRST if name in entries}
    return {**asked_first, **entries}


def numbers(values: Mapping[str, object]) -> dict[str, Shown]:
    """Each known number as a metadata value that Dagster plots; others are left out, a bool becomes 0 or 1."""
    known = {name: value for name, value in values.items() if not math.isnan(as_number(value))}
    return {
        name: dg.MetadataValue.int(int(value))
        if isinstance(value, Integral)
        else dg.MetadataValue.float(round_number(as_number(value)))
        for name, value in known.items()
    }


def texts(values: Mapping[str, str | None]) -> dict[str, Shown]:
    """Each text that is there as a metadata value."""
    return {name: dg.MetadataValue.text(harmless_text(value)) for name, value in values.items() if value}


def table(rows: Sequence[Mapping[str, object]]) -> Shown:
    """Rows with the same columns as a table: texts harmless, four digits a number, a dash for what is not known."""
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows]
    schema = dg.TableSchema([dg.TableColumn(name) for name in (rows[0] if rows else ())])
    return dg.MetadataValue.table(records, schema)


def _cell(value: object) -> str | int | bool:
    if isinstance(value, float):
        return format_number(value, padded=True)
    if isinstance(value, bool | int):
        return value
    return "-" if value is None else harmless_text(str(value))


def tally(values: Mapping[str, int]) -> Shown:
    """Counts by name, such as the samples that were skipped for each reason."""
    return dg.MetadataValue.json({harmless_text(name): number for name, number in values.items()})


def harmless_text(text: str) -> str:
    """A text of somebody else as metadata shows it: bounded, and without characters that act."""
    return shorten(neutralize(text), LONGEST_TEXT)


def code(text: str) -> str:
    """A text of somebody else within Markdown, on one line: a span of code, in which nothing is Markdown."""
    line = shorten(neutralize_line(text), LONGEST_TEXT).replace("|", "\\|") or " "
    fence = "`" * (_longest_run(line) + 1)
    room = " " if "`" in line else ""
    return f"{fence}{room}{line}{room}{fence}"


def code_block(text: str) -> str:
    """The same on lines of its own: a block of code that the text cannot end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{neutralize(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def about_checkpoint(
    checkpoint: Checkpoint | None,
    status: str,
    reasons: Mapping[str, str | None],
    counted: Mapping[str, float | int | None],
) -> dict[str, Shown]:
    """The metadata of an asset that looks at a window's checkpoint: which one it is, what became of it, then the rest.

    Args:
        status: where there is a checkpoint; a window without one was passed through.
        reasons, counted: as of `texts` and `numbers`.
    """
    named = {
        "status": status if checkpoint else PASSED_THROUGH,
        "checkpoint": policy_name(checkpoint.chain, checkpoint.step) if checkpoint else None,
        "checkpoint_id": shorten_id(checkpoint.id) if checkpoint else None,
    }
    site = {"site_page": site_page(link_checkpoint(str(named["checkpoint"])))} if checkpoint else {}
    return {**texts({**named, **reasons}), **site, **numbers(counted)}


def page(asset: str, window: str) -> Shown:
    """A link to the page of an asset's window, on whatever host the UI is."""
    return dg.MetadataValue.url(link_partition(asset, window))


def site_page(address: str) -> Shown:
    """A link to a page of the site, which is beside the UI."""
    return dg.MetadataValue.url(address)


def picture(drawing: str, alt: str) -> Shown:
    """An SVG as Markdown with the data inline, so that the UI shows it without asking any server."""
    data = base64.b64encode(drawing.encode()).decode("ascii")
    return dg.MetadataValue.md(f"![{alt}](data:image/svg+xml;base64,{data})")


class Meaning(NamedTuple):
    """What a name of metadata stands for; the unit is empty for texts, pictures and tables."""

    unit: str
    doc: str


METADATA: dict[str, Meaning] = {
    # the game's tables
    "overdue_minutes": Meaning("min", "Since the window's grace ended, as long as nothing of it was read."),
    "outcomes": Meaning("rows", "Rows of market_outcomes of the window."),
    "markets": Meaning("markets", "Prediction markets that end in the window."),
    "markets_resolved": Meaning("markets", "Those of them whose result is known."),
    "newest": Meaning("", "When the newest of these rows was written."),
    # read
    "trajectories": Meaning("rows", "Trajectories that were read of the window."),
    "agents": Meaning("agents", "Agents that these are of."),
    "calls": Meaning("calls", "Answers that the game itself keeps in them."),
    "imported": Meaning("rows", "Trajectories that came from a file."),
    "quarantined": Meaning("rows", "Rows that could not be read."),
    "quarantined_share": Meaning("share", "Rows in quarantine of all rows of the window."),
    "reasons": Meaning("", "Why rows are in quarantine, and where in them; at most ten."),
    "failed_windows": Meaning("", "The newest windows that stay failed, each with its reason; at most twenty."),
    "wrong": Meaning("", "What a check found to be wrong; at most ten."),
    "window": Meaning("", "The window that a check is about."),
    NOT_SHOWN: Meaning("", "What of the window cannot be shown, and why; nothing else depends on it."),
    "rows_left_out": Meaning("", "How many rows of the window are not read, and why."),
    "dropped": Meaning("", "How much of what could not be read within trajectories, and was left out."),
    "npcs": Meaning("agents", "Agents that have no account of their own."),
    "unknown_words": Meaning("", "Words of the source that are not known, with the number of steps that have each."),
    # scored
    "understood_share": Meaning("share", "Actions, or trades where fewer, of which every word is known."),
    "recognised": Meaning("steps", "Steps whose every word is known."),
    "trades": Meaning("steps", "Steps that traded, and were not refused."),
    "trades_linked": Meaning("steps", "Those whose trade is in the environment's own record."),
    "trades_valued": Meaning("steps", "Those whose worth is known by now."),
    "trades_pending": Meaning("steps", "Those whose worth is still to come."),
    "rewards": Meaning("", "Picture: the distribution of the rewards with its mean, and the means of the groups."),
    "steps": Meaning("steps", "Steps of the window's trajectories."),
    "known": Meaning("steps", "Steps whose reward is known by now."),
    "pending": Meaning(
        "steps", "Steps whose trade has no outcome yet; filled in when the window is materialized again."
    ),
    "invalid": Meaning("steps", "Steps whose action could not be carried out."),
    "valid_share": Meaning("share", "Steps whose action could be carried out, of all."),
    "reward_mean": Meaning("reward", "Mean of the known rewards."),
    "reward_std": Meaning("reward", "Standard deviation of the known rewards."),
    "scorers": Meaning("", "The scorers with their versions."),
    "revision": Meaning("revisions", "The revision of the window's scores that is current now."),
    "changed_trajectories": Meaning("rows", "Trajectories whose scores changed with this materialization; 0: none."),
    "changed_scorers": Meaning("", "The scorers whose scores changed with it."),
    "judge_groups": Meaning("groups", "Groups of answers that a judge is to compare."),
    "judged": Meaning("groups", "Those that it has compared by now."),
    "not_judged": Meaning("groups", "Those that it could not; their scores are missing and asked for again."),
    "judge_requests": Meaning("requests", "Requests to the judge about these groups, over all runs."),
    "judge_tokens": Meaning("tokens", "Tokens of these requests and their answers."),
    "judge_cost_usd": Meaning("USD", "What these requests cost, where the price is known."),
    "judge_failures": Meaning("", "Why groups could not be judged."),
    # dataset
    "samples": Meaning("samples", "Calls in the dataset, those that are not trained on included."),
    "trainable_samples": Meaning("samples", "Samples that something trains on."),
    "trainable_tokens": Meaning(
        "tokens", "Tokens of trainable answers in the dataset; a text alone counts a quarter of its characters."
    ),
    "groups": Meaning("groups", "Groups of samples whose rewards are compared."),
    "trainable_groups": Meaning("groups", "Groups whose rewards differ: only these train."),
    "policy_gradient": Meaning("samples", "Our own answers with known tokens."),
    "recompute": Meaning("samples", "Our own answers as text only; their log-probabilities are computed."),
    "sft": Meaning("samples", "Other models' answers from the better half of their group."),
    "skip": Meaning("samples", "Samples that nothing trains on."),
    "compared_with": Meaning("samples", "Trained samples by what their reward is compared with."),
    "skipped_because": Meaning("", "How many samples are skipped for which reason."),
    "calls_joined": Meaning("calls", "Recorded calls that were found by trajectory, or by agent and time."),
    "calls_that_differ": Meaning("calls", "Samples whose call is recorded with another text; left aside."),
    "calls_claimed_twice": Meaning("calls", "Recorded calls that two samples name; neither gets it."),
    "calls_ambiguous": Meaning("calls", "Recorded calls that could belong to more than one place; left aside."),
    "calls_repeated": Meaning("calls", "Recorded calls that were asked again at once; the last answer counts."),
    "calls_of_other_agents": Meaning("calls", "Recorded calls that name another agent's trajectory; left aside."),
    "calls_of_other_keys": Meaning("calls", "Recorded calls for an agent that another key speaks for; left aside."),
    "calls_out_of_time": Meaning("calls", "Recorded calls made before or after what they name; left aside."),
    "trajectories_without_calls": Meaning("rows", "Trajectories for which no call was found."),
    "steps_without_calls": Meaning("steps", "Steps for which no call was found; scored, and not trained on."),
    "effective_samples": Meaning("samples", "How many equally weighted samples the trained ones are worth."),
    "largest_share_of_one_agent": Meaning("", "The largest part of the gradient that one agent gives."),
    "largest_share_of_one_key": Meaning("", "The same of one gateway key, where keys are known."),
    "largest_share_of_one_decision_point": Meaning("", "The same of one decision point."),
    "policy_lag_mean": Meaning("checkpoints", "How many checkpoints behind the newest the answering policies are."),
    "policy_lag_max": Meaning("checkpoints", "The same of the oldest of them."),
    "carried_samples": Meaning("samples", "Late samples of earlier windows in the dataset."),
    "carried_trajectories": Meaning("rows", "Trajectories that these are of."),
    "carried_too_old": Meaning("samples", "Those of them whose policy is too old: nothing trains on these."),
    "carried_from": Meaning("", "How many late samples of which earlier window are in the dataset."),
    "samples_went": Meaning("", "Picture: how many samples have which training mode, and why others are skipped."),
    "best_and_worst": Meaning(
        "", "The five highest and five lowest rewards; of like actions at a decision point, one."
    ),
    "samples_in_full": Meaning("", "Prompts and answers of these, up to 1,800 and 500 characters; secrets hidden."),
    "dataset_id": Meaning("", "The dataset: how the hash of its content begins; `babylon status` has all of it."),
    # trained
    "learning_curve": Meaning("", "Picture: mean reward of the windows up to this one."),
    "oracle": Meaning(
        "reward",
        "What following the news would have earned there, the best that can be known; simulated game only.",
    ),
    "expert": Meaning("reward", "What the expert, whom the base model imitates, would have earned there."),
    "random": Meaning("reward", "What a random policy would have earned there."),
    "status": Meaning("", "What became of the window: trained, thin, skipped, empty, superseded, switched off."),
    "reason": Meaning("", "Why, in words."),
    "method": Meaning("", "The training modes that were used: policy_gradient, sft, or both."),
    "checkpoint": Meaning("", "The checkpoint that came of it, by the name of its policy."),
    "checkpoint_id": Meaning("", "How the hash of what it was made from begins; `babylon status` has all of it."),
    "parent": Meaning("", "The policy that it was trained from."),
    "path": Meaning("", "Where its weights lie; within `BABYLON_HOME` from there on."),
    "site_page": Meaning("", "Link to its page on the local site: all of its samples, or all that is known of it."),
    "report_page": Meaning("", "Link to the report on the local site, as `babylon report` wrote it last."),
    "parent_page": Meaning("", "Link to the window that the parent was trained on."),
    "dataset_page": Meaning("", "Link to the window's dataset."),
    "run": Meaning("", "Link to the run that made it."),
    "wandb_page": Meaning("", "Link to the W&B project of a hosted checkpoint."),
    "step": Meaning("checkpoints", "Its place in the chain, from 0, the base model."),
    "trained_tokens": Meaning("tokens", "Tokens of answers that kept steps saw, by the model's tokenizer, each once."),
    "undone_tokens": Meaning("tokens", "Tokens of answers that a step saw which was undone."),
    "unseen_tokens": Meaning("tokens", "Tokens of answers that no step saw, for an undone step ended the pass."),
    "left_out_tokens": Meaning("tokens", "Tokens of answers of samples that training left out."),
    "tokens": Meaning("tokens", "Tokens that an optimizer step saw, on average."),
    "loss": Meaning("loss", "Loss of training, mean of the optimizer steps; its sign has no meaning by itself."),
    "grad_norm": Meaning("norm", "Norm of the gradient before it is clipped, mean of the steps."),
    "entropy": Meaning("nats/token", "Entropy of the policy on the trained tokens."),
    "kl_to_parent": Meaning("nats/token", "How far it went from its parent, by one row of tokens (k3 estimate)."),
    "kl_to_behaviour": Meaning("nats/token", "How far the policy went from the one that answered (k3 estimate)."),
    "ratio_mean": Meaning("ratio", "Probability of the trained tokens, against that under the answering policy."),
    "ratio_min": Meaning("ratio", "The least of these."),
    "ratio_max": Meaning("ratio", "The greatest of these."),
    "clipped_share": Meaning("share", "Tokens whose ratio is outside 1 ± CLIP_EPSILON."),
    "probs_correlation": Meaning("correlation", "Of the recorded and the recomputed probabilities; 1 when they agree."),
    "logprob_mean": Meaning("nats/token", "Mean log-probability of the answers trained by sft."),
    "training_steps": Meaning("", "Picture: the metrics of each optimizer step, undone ones hollow."),
    "optimizer_steps": Meaning("steps", "Optimizer steps that were taken."),
    "tokens_per_second": Meaning("tokens/s", "Tokens of answers that an optimizer step trains on, per second of it."),
    "undone_steps": Meaning("steps", "Steps that went too far (MAX_KL) and were taken back."),
    "seconds": Meaning("s", "Seconds of training."),
    "recomputed_samples": Meaning("samples", "Samples whose log-probabilities were computed before training."),
    "left_out": Meaning("", "How many samples training left out for which reason."),
    # evaluated
    "policies": Meaning("", "Table: the checkpoint, its parent, the served policy and the base model, side by side."),
    "evaluations": Meaning("", "Picture: the reward of each of them with its 95% interval, by kind of evaluation."),
    "market_seeds": Meaning("seeds", "Held-out markets of the nightly evaluation."),
    "market_reward": Meaning("reward", "Mean worth of the checkpoint's orders on the held-out market."),
    "market_reward_low": Meaning("reward", "Lower end of its 95% interval, by bootstrap over the seeds."),
    "market_reward_high": Meaning("reward", "Upper end."),
    "market_valid_share": Meaning("share", "Answers on the held-out market that are orders."),
    "market_advantage": Meaning("share", "Share of the oracle's advantage over acting at random on those boards."),
    "gain_on_promoted": Meaning("reward", "Market reward less that of the served policy, seed by seed."),
    "gain_on_base": Meaning("reward", "Market reward less that of the base model, seed by seed."),
    "gain_on_base_low": Meaning("reward", "Lower end of its 95% interval, over the same seeds."),
    "gain_on_base_high": Meaning("reward", "Upper end."),
    "recorded_reward": Meaning("reward", "Mean reward of its answers to the environment's recorded prompts."),
    "recorded_valid_share": Meaning("share", "Its answers to recorded prompts whose action could be carried out."),
    "recorded_prompts": Meaning("prompts", "Recorded prompts that it was asked."),
    "recorded_valued": Meaning("prompts", "Those of them where the environment's record values its answer."),
    "recorded_gain": Meaning("reward", "Its reward less the worth of the recorded answers, prompt by prompt."),
    "off_policy_answers": Meaning("answers", "Answers to held-out agents of the window whose reward is known."),
    "off_policy_preference": Meaning("nats", "How much likelier it finds the better of them than the worse."),
    "off_policy_estimate": Meaning("reward", "What it would have earned there, by importance weights."),
    "off_policy_effective_samples": Meaning("answers", "Effective sample size; too few, and no estimate is given."),
    "no_off_policy_estimate": Meaning("", "Of each policy without an estimate, why none is given."),
    # judged
    "promoted": Meaning("", "1 when the window's checkpoint was promoted, 0 when it was rejected."),
    "why": Meaning("", "The gate's decision in a sentence."),
    "verdict": Meaning("", "Each rule of the gate: what it came to, the bound it was held to, whether it holds."),
    "served": Meaning("", "The policy that is served from then on."),
    "served_step": Meaning("checkpoints", "Its place in the chain."),
    "served_answers": Meaning("answers", "Answers that it has given to agents so far."),
    "served_valid_share": Meaning("share", "Those whose action could be carried out."),
    "served_reward": Meaning("reward", "Mean of their known rewards."),
    "rolled_back": Meaning("", "Why AUTO_ROLLBACK went back to an earlier policy."),
    "trained_models": Meaning("", "The inference name that was written into the game's trained_models."),
    # nightly
    "pruned_checkpoints": Meaning("checkpoints", "Checkpoints whose weights were removed."),
    "freed_bytes": Meaning("bytes", "Bytes of these."),
    "removed_events": Meaning("events", "Events of old runs that were removed from Dagster's tables."),
}
