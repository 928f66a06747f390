"""The four assets of a window in one run: what they leave in the ledger, in the metadata and in the checks."""

from __future__ import annotations

import base64
import sys
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import dagster as dg
import pandas as pd
import pytest

from babylon_assets.domain.errors import PermanentError, TransientError
from babylon_assets.domain.site_links import link_samples
from babylon_assets.ledger import checkpoints, windows
from babylon_assets.ledger.database import chain_lock
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.lineage import forget_agent
from tests.orchestration.assets.conftest import FIRST, SECOND, World

ASSETS = ("raw_trajectories", "scored_trajectories", "training_datasets", "model_checkpoints")


@pytest.fixture
def trained(world: World) -> World:
    world.play(FIRST)
    world.run(FIRST)
    return world


def test_a_played_window_becomes_a_checkpoint(shown: World) -> None:
    row = shown.row(FIRST)
    assert (row.status, row.trajectories, row.agents, row.samples) == ("trained", 6, 6, 48)
    with shown.database.connect() as conn:
        root, made = checkpoints.chain(conn, "babylon-agent")
    assert (made.id, made.parent_id, made.dataset_id) == (row.checkpoint_id, root.id, row.dataset_id)
    run = shown.instance.get_run_by_id(made.dagster_run_id or "")
    assert run is not None and run.status is dg.DagsterRunStatus.SUCCESS


def test_the_next_checkpoint_leads_to_its_run_its_dataset_and_its_parent(trained: World) -> None:
    trained.play(SECOND)
    trained.run(SECOND)
    assert trained.row(SECOND).parent_id == trained.row(FIRST).checkpoint_id
    first, second = (trained.metadata("model_checkpoints", window) for window in (FIRST, SECOND))
    with trained.database.connect() as conn:
        made = checkpoints.chain(conn, "babylon-agent")[-1]
    assert second["run"] == made.dagster_run_id
    assert second["dataset_page"] == f"/assets/training_datasets?view=partitions&partition={quote(SECOND)}"
    assert second["parent_page"] == f"/assets/model_checkpoints?view=partitions&partition={quote(FIRST)}"
    assert "parent_page" not in first and "wandb_page" not in second


def test_every_partition_is_recorded_with_what_a_person_wants_to_know(shown: World) -> None:
    raw, scored, dataset, made = (shown.metadata(asset, FIRST) for asset in ASSETS)
    assert (raw["trajectories"], raw["agents"], raw["steps"], raw["calls"], raw["quarantined"]) == (6, 6, 48, 48, 0)
    assert (scored["steps"], scored["known"] + scored["pending"]) == (48, 48)
    assert dataset["samples"] == 48
    skipped = dataset.get("skip", 0)
    assert dataset["policy_gradient"] + skipped == 48
    assert sum(dataset.get("skipped_because", {}).values()) == skipped
    assert made["status"] == "trained"
    assert made["trained_tokens"] > 0
    assert {"loss", "entropy", "kl_to_behaviour", "grad_norm", "seconds", "step", "oracle", "random"} <= set(made)
    assert made["reward_mean"] == dataset["reward_mean"] == pytest.approx(shown.row(FIRST).reward_mean, rel=1e-3)
    assert all(isinstance(made[name], float) for name in ("loss", "entropy", "grad_norm", "seconds"))


PICTURES = (
    ("scored_trajectories", "rewards"),
    ("training_datasets", "rewards"),
    ("training_datasets", "samples_went"),
    ("model_checkpoints", "learning_curve"),
    ("model_checkpoints", "training_steps"),
)


def test_the_best_and_the_worst_samples_are_shown_unless_they_must_not_be(trained: World) -> None:
    dataset = trained.metadata("training_datasets", FIRST)
    rewards = [float(record.data["reward"]) for record in dataset["best_and_worst"].records]
    assert len(rewards) == 10
    assert rewards[:5] == sorted(rewards[:5], reverse=True) and rewards[5:] == sorted(rewards[5:])
    assert rewards[4] >= rewards[9]
    assert dataset["samples_in_full"].count("Answered:") == 10
    trained.having(show_samples=False).run(FIRST)
    assert {"best_and_worst", "samples_in_full"}.isdisjoint(trained.metadata("training_datasets", FIRST))


def test_pictures_are_inline(shown: World) -> None:
    for asset, name in PICTURES:
        _, _, data = shown.metadata(asset, FIRST)[name].partition("(data:image/svg+xml;base64,")
        assert base64.b64decode(data.rstrip(")")).startswith(b"<svg"), name


def test_unchanged_input_writes_nothing_new(trained: World) -> None:
    before = asdict(trained.row(FIRST)) | {"changed_at": None}
    trained.run(FIRST)
    assert asdict(trained.row(FIRST)) | {"changed_at": None} == before
    assert trained.metadata("model_checkpoints", FIRST)["reason"].endswith("; this dataset was trained before")
    assert trained.check("model_checkpoints", "trained_on_tokens").passed
    with trained.database.connect() as conn:
        assert len(checkpoints.chain(conn, "babylon-agent")) == 2


WRITTEN = "SELECT trajectory_id, xmin::text FROM babylon_training.raw_trajectories ORDER BY 1"


def test_unchanged_rows_are_not_written_again_and_a_late_outcome_is_noticed(world: World) -> None:
    """The market that resolves is one that steps name and no trade."""
    world.play(FIRST)
    world.execute('DELETE FROM public."AgentTrade"')
    world = world.having(train_rl_local=False)

    def run() -> tuple[list[tuple[str, str]], str]:
        world.run(FIRST)
        with world.database.connect() as conn:
            return conn.execute(WRITTEN).fetchall(), str(world.row(FIRST).fingerprint)

    first = run()
    assert run() == first
    world.execute('UPDATE public."Market" SET resolved = NOT resolved, "updatedAt" = now()')
    rows, fingerprint = run()
    assert fingerprint != first[1]
    assert [row[0] for row in rows] == [row[0] for row in first[0]]
    assert {row[1] for row in rows}.isdisjoint(row[1] for row in first[0])


def test_rows_that_were_lost_are_read_again(world: World) -> None:
    world = world.having(train_rl_local=False)
    world.play(FIRST)
    world.run(FIRST)
    table = "babylon_training.raw_trajectories"
    world.execute(f"DELETE FROM {table} WHERE trajectory_id = (SELECT min(trajectory_id) FROM {table})")
    world.run(FIRST)
    assert world.metadata("raw_trajectories", FIRST)["trajectories"] == 6
    assert world.metadata("raw_trajectories", FIRST)["site_page"] == link_samples(window=FIRST)


def test_a_window_that_was_never_recorded_is_green_and_leaves_no_row(trained: World) -> None:
    trained.run(SECOND)
    with trained.database.connect() as conn:
        assert windows.get_window(conn, SECOND) is None
    assert trained.check("model_checkpoints", "trained_on_tokens").passed
    assert trained.check("training_datasets", "has_trainable_tokens").passed
    assert trained.metadata("model_checkpoints", SECOND)["status"] == "empty"


def test_too_few_samples_are_thin_and_say_so(world: World) -> None:
    strict = world.having(min_samples_per_window=1000)
    strict.play(FIRST)
    strict.run(FIRST)
    row = strict.row(FIRST)
    assert row.status == "thin"
    assert "MIN_SAMPLES_PER_WINDOW is 1000" in (row.reason or "")


def test_nothing_to_train_on_is_a_failed_check_and_no_checkpoint(world: World) -> None:
    world.play(FIRST)
    world.execute("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"response":', '"answer":')""")
    world.run(FIRST)
    row = world.row(FIRST)
    assert (row.status, row.checkpoint_id, row.trainable_tokens) == ("skipped", None, 0)
    assert "nothing in the window can be trained on" in (row.reason or "")
    assert not world.check("training_datasets", "has_trainable_tokens").passed
    assert not world.check("model_checkpoints", "trained_on_tokens").passed


def test_an_hour_that_comes_too_late_is_green_and_said(world: World) -> None:
    world.play(FIRST)
    world.play(SECOND)
    world.run(SECOND)
    world.run(FIRST)
    late = world.row(FIRST)
    assert (late.status, late.checkpoint_id) == ("skipped", None)
    assert (late.reason or "").startswith(f"the chain has moved on to {SECOND}; the chain stays as it is")
    assert world.metadata("model_checkpoints", FIRST)["reason"] == late.reason
    assert world.check("model_checkpoints", "trained_on_tokens").passed


def test_a_package_that_is_missing_is_named_with_what_to_type(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world.having(base_model=None)
    world.play(FIRST)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PermanentError, match=r"transformers is not installed; type: pip install"):
        world.run(FIRST)
    assert "transformers is not installed" in (world.row(FIRST).reason or "")


NO_CALLS_IN_THE_GAME = """UPDATE public.trajectories SET "stepsJson" = (
    SELECT json_agg(jsonb_set(step, '{llmCalls}', '[]') ORDER BY place)::text
    FROM jsonb_array_elements(replace("stepsJson", '\\u0000', '\\u0020')::jsonb)
        WITH ORDINALITY AS steps (step, place))"""


def test_live_rows_are_trained_on_the_calls_that_were_recorded(world: World) -> None:
    world.play(FIRST)
    world.execute(NO_CALLS_IN_THE_GAME)
    world.execute("UPDATE babylon_training.inference_calls SET trajectory_id = NULL, step = NULL")
    world.run(FIRST)
    dataset = world.metadata("training_datasets", FIRST)
    assert world.metadata("raw_trajectories", FIRST)["calls"] == 0
    assert (dataset["calls_joined"], dataset["samples"]) == (48, 48)
    assert dataset.keys().isdisjoint({"steps_without_calls", "calls_ambiguous", "carried_samples", "sft", "recompute"})
    assert list(dataset).index("trainable_tokens") < list(dataset).index("calls_joined")
    assert world.row(FIRST).status == "trained"


def test_live_rows_without_calls_are_scored_and_counted(world: World) -> None:
    world.play(FIRST)
    world.execute(NO_CALLS_IN_THE_GAME)
    world.execute("DELETE FROM babylon_training.inference_calls")
    world.run(FIRST)
    assert world.metadata("scored_trajectories", FIRST)["known"] > 0
    dataset = world.metadata("training_datasets", FIRST)
    assert (dataset["samples"], dataset["steps_without_calls"], dataset["trajectories_without_calls"]) == (0, 48, 6)
    assert world.row(FIRST).status == "skipped"


def test_training_switched_off_is_green_and_said(world: World) -> None:
    world = world.having(train_rl_local=False)
    world.play(FIRST)
    world.run(FIRST)
    row = world.row(FIRST)
    assert (row.status, row.checkpoint_id) == ("ready", None)
    assert "TRAIN_RL_LOCAL" in world.metadata("model_checkpoints", FIRST)["reason"]


def test_rows_that_cannot_be_read_warn_and_cost_nothing_else(world: World) -> None:
    world.play(FIRST)
    world.execute(
        'UPDATE public.trajectories SET "stepsJson" = left("stepsJson", 100)'
        " WHERE id IN (SELECT id FROM public.trajectories ORDER BY id LIMIT 1)"
    )
    world.run(FIRST)
    metadata = world.metadata("raw_trajectories", FIRST)
    assert (metadata["trajectories"], metadata["quarantined"]) == (5, 1)
    check = world.check("raw_trajectories", "little_in_quarantine")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert world.row(FIRST).status == "trained"


def test_a_permanent_failure_names_the_remedy_and_marks_the_window(world: World) -> None:
    world.execute('DROP TABLE public."market_outcomes"')
    with pytest.raises(PermanentError, match=r'"market_outcomes" is missing.*Point DATABASE_URL'):
        world.run(FIRST)
    row = world.row(FIRST)
    assert row.status == "failed"
    assert "market_outcomes" in (row.reason or "")
    run = world.instance.get_runs(limit=1)[0]
    events = world.instance.all_logs(run.run_id)
    assert not any(event.is_dagster_event and event.get_dagster_event().is_step_restarted for event in events)


def test_a_failure_does_not_unmake_a_trained_window(trained: World) -> None:
    trained.execute('DROP TABLE public."market_outcomes"')
    with pytest.raises(PermanentError):
        trained.run(FIRST)
    assert trained.row(FIRST).status == "trained"


def test_a_busy_chain_is_tried_again_and_then_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babylon_assets.orchestration.runtime.failures.FIRST_WAIT_SECONDS", 0.01)
    world.play(FIRST)
    with chain_lock(world.database, "babylon-agent"), pytest.raises(TransientError, match="another run is training"):
        world.run(FIRST)
    assert world.row(FIRST).status == "ready"
    world.run(FIRST)
    assert world.row(FIRST).status == "trained"


def test_a_person_gets_every_asset_as_a_frame(shown: World) -> None:
    frames: dict[str, Any] = {
        asset: shown.definitions.load_asset_value(asset, python_type=pd.DataFrame, partition_key=FIRST)
        for asset in ASSETS
    }
    assert {asset: len(frame) for asset, frame in frames.items()} == dict(zip(ASSETS, (6, 48, 48, 1), strict=True))
    assert {"trajectory_id", "agent_id", "steps"} <= set(frames["raw_trajectories"])
    assert {"trajectory_id", "step", "outcome", "heuristic", "reward"} <= set(frames["scored_trajectories"])
    assert {"sample_id", "advantage", "trains_as"} <= set(frames["training_datasets"])
    assert frames["model_checkpoints"]["window_id"].tolist() == [FIRST]


def test_a_downstream_asset_takes_a_frame_as_its_argument(shown: World) -> None:
    seen = {}

    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition(FIRST, fmt="%Y-%m-%dT%H:00"))
    def report(scored_trajectories: pd.DataFrame) -> None:
        seen["rewards"] = scored_trajectories["reward"].notna().sum()

    mine = dg.Definitions.merge(shown.definitions, dg.Definitions(assets=[report]))
    job = mine.resolve_implicit_job_def_def_for_assets([dg.AssetKey("report")])
    assert job is not None
    job.execute_in_process(partition_key=FIRST, asset_selection=[dg.AssetKey("report")])
    assert seen["rewards"] == shown.metadata("scored_trajectories", FIRST)["known"]


def test_the_hours_of_a_forgotten_agent_are_frozen_again_without_it(world: World) -> None:
    world = world.having(train_rl_local=False)
    world.play(FIRST)
    world.run(FIRST)
    before = world.row(FIRST)
    with world.database.connect() as conn:
        [(agent,)] = conn.execute("SELECT min(agent_id) FROM babylon_training.raw_trajectories").fetchall()
        assert forget_agent(conn, agent)["datasets"] == 1
    for _ in range(2):
        world.run(FIRST)
        row = world.row(FIRST)
        assert (row.status, row.trajectories) == ("ready", before.trajectories - 1)
        with world.database.connect() as conn:
            samples = load_dataset(conn, row.dataset_id or "").samples
        assert samples and agent not in {sample.agent_id for sample in samples}
