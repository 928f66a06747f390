"""Freezing a window: its dataset is built of what the ledger keeps of it, kept, and noted on the window.

Which samples are compared, and what each trains as, is a rule of `domain.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from babylon_assets.config.settings import Settings
from babylon_assets.domain import hindsight, joining
from babylon_assets.domain.baselines import Likeness
from babylon_assets.domain.credit import discount_rest
from babylon_assets.domain.datasets import draft_dataset
from babylon_assets.domain.hindsight import Place
from babylon_assets.domain.samples import DatasetDraft, StepScores
from babylon_assets.domain.trajectories import CallHead, RawSample, StoredSamples, TrajectoryRecord
from babylon_assets.environments.weighted_scorers import choose_weights
from babylon_assets.ledger import datasets, inference_calls, late_samples, scores, trajectories, windows
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Connection, window_lock
from babylon_assets.ledger.dataset_counts import summarize_rewards
from babylon_assets.ledger.windows import WindowColumns, WindowRow
from babylon_assets.orchestration import carry_over
from babylon_assets.orchestration.collector import collector_held_off
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.source_tables import list_left_out


@collector_held_off()
def freeze_window(installation: Installation, window: str) -> tuple[DatasetDraft, WindowRow]:
    """Build the dataset of a window from what is kept of it, keep it, and note it on the window.

    The window's lock keeps another run from replacing what it is built from; texts are not read, they are hashed, but
    for those of late samples. The dataset, what it carries of other windows, and what is late of a window that was
    trained before are one transaction.
    """
    settings = installation.settings
    with installation.connect() as conn:
        window_lock(conn, window)
        records = trajectories.read_heads(conn, window)
        build = _builder(conn, installation, window, records, scores.read_step_scores(conn, window))
        dataset, agents = build(), len({record.agent_id for record in records})
        thin = _why_thin(dataset, agents, settings)
        if thin and (left_out := list_left_out(installation.environment, conn, window)):
            thin += f"; not read: {left_out}"
        teaches = thin is None and dataset.counts["trainable_samples"] > 0
        stands = carry_over.plan_carry_over(conn, settings, window, teaches=teaches)
        if stands.samples:
            dataset = build(carried=stands.samples)
        datasets.save_dataset(conn, dataset)
        carry_over.keep(conn, settings, dataset, stands)
        changes = _window_columns(windows.get_window(conn, window), dataset, thin)
        row = windows.upsert_window(conn, window, **changes)
        if stands.own is not None:  # what waits is counted in the window's newest dataset, which is noted by now
            row = windows.upsert_window(conn, window, **_as_trained(conn, settings, dataset, stands.own))
        return dataset, row


def freeze_beside(installation: Installation, window: str, step_scores: StepScores) -> DatasetDraft:
    """Build a dataset of a window from these scores, for a branch, and keep it; the window's own stays as it is.

    The late samples that the chain's checkpoint of the window was trained on are in it.
    """
    with installation.connect() as conn:
        window_lock(conn, window)
        records = trajectories.read_heads(conn, window)
        taken = carry_over.samples_taken(conn, installation.settings.model_name, window)
        dataset = _builder(conn, installation, window, records, step_scores)(carried=taken)
        datasets.save_dataset(conn, dataset)
        return dataset


def _builder(
    conn: Connection,
    installation: Installation,
    window: str,
    records: list[TrajectoryRecord],
    step_scores: StepScores,
) -> Callable[..., DatasetDraft]:
    """What builds the window's dataset of what is kept of it now; `carried` joins samples of other windows."""
    settings, result_keys = installation.settings, installation.environment.result_keys
    return partial(
        draft_dataset,
        window,
        records,
        inference_calls.calls_of(conn, window, joining.named_calls(records)),
        discount_rest(step_scores, _credit_discount(installation)),
        settings.model_name,
        trajectories.chat_hashes(conn, window),
        moment_seconds=settings.datasets.moment_seconds,
        group_mode=settings.datasets.group_by,
        held_out_share=settings.datasets.held_out_share,
        max_samples=settings.datasets.max_samples_per_window,
        max_tokens=settings.datasets.max_tokens_per_window,
        seed=settings.training.seed,
        max_gradient_share=settings.datasets.max_gradient_share,
        result_keys=result_keys,
        suspicious=_suspicious_places(conn, window, records, result_keys),
        likeness=Likeness(
            kind_of=installation.environment.action_kind,
            class_of=installation.environment.agent_class,
            state_seconds=installation.environment.state_seconds,
            running_mean=cache(partial(datasets.running_mean, conn, window)),
        ),
        weights=choose_weights(settings, installation.environment),
        invalid_reward=settings.rewards.invalid_action_reward,
    )


def _credit_discount(installation: Installation) -> float:
    """How much of its tick's rest a step is credited with; nothing where a trajectory is more than a tick."""
    rewards = installation.settings.rewards
    return rewards.credit_discount if installation.environment.trajectory_is_tick else 0.0


def _suspicious_places(
    conn: Connection, window: str, records: list[TrajectoryRecord], result_keys: tuple[str, ...]
) -> set[Place]:
    """The calls whose prompts, as the environment's rows have them, name a result; texts are read one row at a time."""
    if not result_keys:
        return set()
    heads = {record.trajectory_id: [(sample.step, sample.call) for sample in _heads(record)] for record in records}
    places: set[Place] = set()
    for name, chat in trajectories.stream_chats(conn, window):
        places |= hindsight.suspicious_places(name, heads[name], chat, result_keys)
    return places


def _heads(record: TrajectoryRecord) -> Sequence[CallHead | RawSample]:
    return record.samples.heads if isinstance(record.samples, StoredSamples) else record.samples


def _window_columns(before: WindowRow | None, dataset: DatasetDraft, thin: str | None) -> WindowColumns:
    """What the dataset says of its window. A window that was trained on this very dataset keeps its state."""
    reward = summarize_rewards(own_rewards(dataset))
    columns: WindowColumns = {
        "samples": len(dataset.samples),
        "reward_mean": reward.mean,
        "reward_std": reward.std,
        "dataset_id": dataset.id,
        "trainable_tokens": dataset.counts["trainable_tokens"],
    }
    if before is not None and before.dataset_id == dataset.id and before.status in ("trained", "skipped"):
        return columns
    return {
        **columns,
        "status": "thin" if thin else "ready",
        "reason": thin,
    }


def _as_trained(conn: Connection, settings: Settings, dataset: DatasetDraft, own: Checkpoint) -> WindowColumns:
    """What a window that has its checkpoint goes on to be, whatever became of its data since."""
    same = own.dataset_id == dataset.id
    return {
        "status": "trained",
        "reason": None if same else late_samples.reason_of(conn, settings.model_name, dataset.window),
    }


def _why_thin(dataset: DatasetDraft, agents: int, settings: Settings) -> str | None:
    """Why the window has too little to train on. Nothing at all, in a full window, is not thin: training says why."""
    trainable = dataset.counts["trainable_samples"]
    if agents < settings.datasets.min_agents_per_window:
        return f"{agents} agents, MIN_AGENTS_PER_WINDOW is {settings.datasets.min_agents_per_window}"
    if 0 < trainable < settings.datasets.min_samples_per_window:
        return f"{trainable:,} trainable samples, MIN_SAMPLES_PER_WINDOW is {settings.datasets.min_samples_per_window}"
    return None


def own_rewards(dataset: DatasetDraft) -> list[float]:
    """The known rewards of the window's own samples: what is carried was played, and counted, in another."""
    own = (sample for sample in dataset.samples if sample.window == dataset.window)
    return [sample.reward for sample in own if sample.reward is not None]
