"""The asset training_datasets: the frozen samples of a window.

Which samples are compared, and what each trains as, is decided in `domain.datasets`.
"""

from dataclasses import replace
from functools import partial
from statistics import fmean

import dagster as dg

from babylon_assets.config.settings import Settings, secrets_of
from babylon_assets.domain import joining
from babylon_assets.domain.baselines import count_levels
from babylon_assets.domain.datasets import CARRIED, CARRIED_TRAJECTORIES
from babylon_assets.domain.display_text import shorten_id
from babylon_assets.domain.grouping import BASELINES
from babylon_assets.domain.samples import DatasetDraft
from babylon_assets.domain.sampling import effective_samples, policy_lags
from babylon_assets.domain.site_links import link_samples
from babylon_assets.ledger import checkpoints, trajectories
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.datasets import RUNNING_WINDOWS
from babylon_assets.ledger.windows import WindowRow, get_window
from babylon_assets.orchestration import carry_over, checks, examples
from babylon_assets.orchestration.assets.scored_trajectories import NAME as SCORED
from babylon_assets.orchestration.freezing import freeze_window, own_rewards
from babylon_assets.orchestration.metadata import declare, numbers, picture, show, site_page, tally, texts
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Stage, WindowResult
from babylon_assets.report.pictures import draw_rewards, draw_sample_fates

NAME = "training_datasets"
CHECKS = (checks.TOKENS, checks.HINDSIGHT, checks.STABLE)

DESCRIPTION = f"""
What the next checkpoint is trained on from this window, frozen and named by the hash of its content.

- A **sample** is one call: the prompt as the policy saw it, its answer, the recorded token ids and log-probabilities.
- A **group** is the samples of one decision point. The **advantage** of a sample is its reward less the mean of its
  group, so that a window in which everybody won trains nothing by itself.
- An answer without one of another trajectory at its decision point is compared with those of the same few minutes, else
  with those of its agent's class in the window, else with the mean of the {RUNNING_WINDOWS} windows before.
  `compared_with` counts the trained samples of each. Only actions of a kind are compared.
- A sample's **training mode** is `policy_gradient` (our own answer, tokens known), `recompute` (our own, text only),
  `sft` (another model's, from the better half of its group) or `skip`, with the reason.
- Answers that the environment does not keep are found among the recorded calls, by trajectory, or by agent and time.
  Each call is used once. An ambiguous call is counted and left aside. So is a call of another agent
  (`calls_of_other_agents`), of another key (`calls_of_other_keys`), or of another time (`calls_out_of_time`).
  `steps_without_calls` counts the steps for which none was found.
- A share of the agents (HELD_OUT_SHARE, by hash) is **held out**: scored, kept, never trained on.
- One agent, one key and one decision point may give at most MAX_GRADIENT_SHARE of the gradient, or twice an even share
  where that is more. Of whoever gives more, the samples that weigh most are left out. `largest_share_of_one_agent` and
  its neighbours say how much that is.
- Whole groups are drawn from a window with more than MAX_SAMPLES_PER_WINDOW or MAX_TOKENS_PER_WINDOW.
  `effective_samples` says how many equally weighted samples the rest is worth.
- With LATE_DATA=carry, samples of an earlier window whose data changed after it was trained join this one, once, each
  with its own group and advantage. `carried_from` counts them here, the earlier window's `reason` there.
- `best_and_worst` has the five answers with the highest rewards and the five with the lowest. Of the same action at a
  decision point it has one. `samples_in_full` has their prompts and answers.

The same input gives the same id and writes nothing new. The check `{checks.TOKENS}` fails when nothing can be trained
on. The checks `{checks.STABLE}` and `{checks.HINDSIGHT}` read the stored dataset. They stop a window whose dataset does
not hash to its id or holds a text that was never recorded. A sample is skipped whose prompt is JSON with a field that
is named as a result is. The window stops where more than 5% of the samples are like that. Texts are not looked into.
"""


def stage(windows: dg.TimeWindowPartitionsDefinition) -> Stage:
    """The asset's declaration, with one partition per window, and what makes one of them."""
    spec = dg.AssetSpec(
        NAME,
        deps=[SCORED],
        description=DESCRIPTION,
        kinds={"postgres", "pandas"},
        tags={"babylon/stage": "dataset"},
    )
    return Stage(declare(spec), checks.declare_checks(NAME, CHECKS, windows), make=freeze)


def freeze(installation: Installation, window: str, _run_id: str | None = None) -> WindowResult:
    """Freeze the dataset of a window, say what it holds, and look at it as it is kept."""
    dataset_id, fresh = _frozen(installation, window)
    with installation.connect() as conn:
        kept = checks.stored_dataset(conn, window, dataset_id, installation.environment.result_keys)
    return replace(fresh, checks=[*fresh.checks, *kept])


def _frozen(installation: Installation, window: str) -> tuple[str, WindowResult]:
    """What is said of the dataset while it is at hand: it takes more room than the look at it afterwards."""
    dataset, row = freeze_window(installation, window)
    settings = installation.settings
    with installation.connect() as conn:
        before = checkpoints.newest_before(conn, settings.model_name, window)
        trained = checkpoints.by_window(conn, settings.model_name, window)
        givers = carry_over.givers(conn, settings, window)
        lost = trajectories.summary(conn, window).quarantined
    metadata = show(
        {
            "best_and_worst": lambda: _examples(installation, dataset) if settings.automation.show_samples else {},
            "rewards": lambda: picture(draw_rewards(own_rewards(dataset), groups=_group_rewards(dataset)), "rewards"),
            "samples_went": lambda: picture(draw_sample_fates(dataset.counts, lost), "where the samples went"),
            "counts": lambda: _metadata(dataset, row),
            "strength": lambda: _strength(dataset, before.step if before else 0),
            "late": partial(_late, installation, window),
        }
    )
    observed = {giver: show({"standing": partial(_standing, installation, giver)}) for giver in givers}
    results = [checks.trainable_tokens(dataset, row)]
    return dataset.id, WindowResult(metadata, results, _version(settings, dataset.id, trained), observed=observed)


def _version(settings: Settings, dataset_id: str, trained: Checkpoint | None) -> str:
    """What the window's checkpoint is to be made from: a newer dataset of a trained window is only where
    LATE_DATA=retrain trains it again. Else its checkpoint stays as it is, and is not out of step in the UI."""
    if trained is None or trained.dataset_id is None or settings.automation.late_data == "retrain":
        return dataset_id
    return trained.dataset_id


def _late(installation: Installation, window: str) -> dict[str, dg.MetadataValue]:
    with installation.connect() as conn:
        return carry_over.metadata(conn, installation.settings, window)


def _standing(installation: Installation, window: str) -> dict[str, dg.MetadataValue]:
    """What is said of a window that gave late samples. Dagster shows an observation above what was materialized."""
    with installation.connect() as conn:
        row = get_window(conn, window)
    return texts({"status": row.status, "reason": row.reason}) if row else {}


def _examples(installation: Installation, dataset: DatasetDraft) -> dict[str, dg.MetadataValue]:
    secrets, environment = secrets_of(installation.settings), installation.environment
    with installation.connect() as conn, installation.source_of(conn) as source:
        return examples.of_dataset(conn, dataset, secrets, environment, source)


def _metadata(dataset: DatasetDraft, row: WindowRow) -> dict[str, dg.MetadataValue]:
    """Its counts, the important ones first; of the others, those that are not 0."""
    counts = dataset.counts
    skipped = {name.removeprefix("skip: "): number for name, number in counts.items() if name.startswith("skip: ")}
    shown = ("samples", "trainable_samples", "trainable_tokens", "groups", "trainable_groups")
    others = ("policy_gradient", "recompute", "sft", "skip", *joining.COUNTS, CARRIED, CARRIED_TRAJECTORIES)
    return {
        **numbers({name: counts[name] for name in shown}),
        **numbers({name: counts[name] for name in others if counts.get(name)}),
        **numbers({"reward_mean": row.reward_mean, "reward_std": row.reward_std}),
        **texts({"dataset_id": shorten_id(dataset.id), "status": row.status, "reason": row.reason}),
        "compared_with": tally({BASELINES[level]: n for level, n in count_levels(dataset.samples).items() if n}),
        "skipped_because": tally(skipped),
        "site_page": site_page(link_samples(window=row.window_id)),
    }


def _group_rewards(dataset: DatasetDraft) -> list[list[float]]:
    """The known rewards of each of the window's own groups."""
    groups: dict[str, list[float]] = {}
    for sample in dataset.samples:
        if sample.reward is not None and sample.window == dataset.window:
            groups.setdefault(sample.group, []).append(sample.reward)
    return list(groups.values())


def _strength(dataset: DatasetDraft, step: int) -> dict[str, dg.MetadataValue]:
    """What the trained samples amount to, and how many steps before this one the policies are that gave them."""
    lags = policy_lags(dataset.samples, step)
    return numbers(
        {
            "effective_samples": effective_samples(dataset.samples),
            "policy_lag_mean": fmean(lags) if lags else None,
            "policy_lag_max": max(lags, default=None),
            **{f"largest_share_of_one_{kind}": share for kind, share in dataset.shares.items()},
        }
    )
