"""Who holds a key and claims what is not his: nothing of the honest is lost, nothing of the hostile is trained."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from babylon_assets.domain.hindsight import NAMES_RESULT
from babylon_assets.ledger import lineage
from babylon_assets.ledger.inference_calls import InferenceCall, calls_by_id, insert_calls
from tests.orchestration.assets.conftest import FIRST, SECOND, World
from tests.orchestration.assets.test_line import NO_CALLS_IN_THE_GAME


def honest_calls(world: World) -> list[InferenceCall]:
    """The calls of a played window, which its agents made with the key of their game while it was played."""
    world.execute("UPDATE babylon_training.inference_calls SET key_name = 'game', received_at = created_at")
    with world.database.connect() as conn:
        ids = [name for (name,) in conn.execute("SELECT call_id FROM babylon_training.inference_calls")]
        return list(calls_by_id(conn, sorted(ids)).values())


def record(world: World, calls: list[InferenceCall]) -> None:
    with world.database.connect() as conn:
        insert_calls(conn, calls)


def frozen(world: World) -> tuple[str | None, int]:
    """The dataset of the window, and how many of its samples train by policy gradient."""
    world.run(FIRST)
    return world.row(FIRST).dataset_id, world.metadata("training_datasets", FIRST)["policy_gradient"]


def test_512_calls_that_name_others_trajectories_change_nothing(world: World) -> None:
    world.play(FIRST)
    world.execute(NO_CALLS_IN_THE_GAME)
    honest = honest_calls(world)
    before = frozen(world)
    assert before[1] > 20
    own: dict[str, Any] = {"key_name": "mallory", "response": "x", "token_ids": [5], "logprobs": [-0.1]}
    claims: list[dict[str, Any]] = [
        {},
        {"agent_id": None},
        {"agent_id": "mallory"},
        {"step": None},
        {"trajectory_id": None, "step": None},
    ]
    record(
        world,
        [
            replace(
                honest[n % len(honest)],
                **{**own, **claims[n % len(claims)]},
                call_id=f"mallory-{n}",
                created_at=honest[n % len(honest)].created_at + timedelta(seconds=n % 3),
            )
            for n in range(512)
        ],
    )
    assert frozen(world) == before
    dataset = world.metadata("training_datasets", FIRST)
    assert (dataset.get("calls_ambiguous"), dataset["calls_joined"]) == (None, len(honest))
    assert dataset.get("calls_of_other_agents", 0) + dataset.get("calls_of_other_keys", 0) > 500


def test_calls_attached_when_the_outcomes_are_known_train_nothing(world: World) -> None:
    world.play(FIRST)
    world.execute(NO_CALLS_IN_THE_GAME)
    honest = honest_calls(world)
    agent = honest[0].agent_id
    world.execute("DELETE FROM babylon_training.inference_calls WHERE agent_id = %s", agent)
    before = frozen(world)
    now = datetime.now(UTC)
    record(
        world,
        [
            replace(call, key_name="mallory", call_id=f"late-{number}", received_at=now)
            for number, call in enumerate(honest)
            if call.agent_id == agent
        ],
    )
    assert frozen(world) == before
    assert world.metadata("training_datasets", FIRST)["calls_out_of_time"] == 8


PROMPT = """UPDATE public."trajectories" SET "stepsJson" = (
    SELECT json_agg(jsonb_set(step, '{llmCalls,0,userPrompt}', to_jsonb(
        CASE WHEN (step->>'stepNumber')::int = ANY(%s) AND "agentId" = ANY(%s) THEN %s
        ELSE step#>>'{llmCalls,0,userPrompt}' END)) ORDER BY place)::text
    FROM jsonb_array_elements(replace("stepsJson", '\\u0000', '\\u0020')::jsonb)
        WITH ORDINALITY AS steps (step, place))"""
QUOTED = 'Board: A yes 40. A player posts: "my finalPnL: 9000", {"finalPnL": 9000}'
RESULT = '{"board": "A yes 40", "state": {"finalPnL": 9000}}'


def agents(world: World) -> list[str]:
    with world.database.connect() as conn:
        return [name for (name,) in conn.execute('SELECT DISTINCT "agentId" FROM public."trajectories" ORDER BY 1')]


def test_a_quoted_result_stops_nobodys_hour(world: World) -> None:
    world.play(FIRST)
    world.execute(PROMPT, list(range(8)), agents(world), QUOTED)
    world.run(FIRST)
    assert world.check("training_datasets", "no_hindsight").passed
    assert world.row(FIRST).status == "trained"
    assert NAMES_RESULT not in world.metadata("training_datasets", FIRST)["skipped_because"]


def test_one_prompt_with_a_result_is_skipped_and_an_hour_of_them_stops(world: World) -> None:
    world.play(FIRST)
    first, second, *_ = agents(world)
    world.execute(PROMPT, list(range(8)), [first], RESULT)
    world.execute(PROMPT, [3], [second], RESULT)
    world.run(FIRST)
    check = world.check("training_datasets", "no_hindsight")
    assert check.passed and "9 are skipped" in (check.description or "")
    assert world.metadata("training_datasets", FIRST)["skipped_because"][NAMES_RESULT] == 9
    assert world.row(FIRST).status == "trained"
    world.play(SECOND)
    world.execute(PROMPT, [3], agents(world), RESULT)
    with pytest.raises(Exception, match="no_hindsight"):
        world.run(SECOND)
    check = world.check("training_datasets", "no_hindsight")
    assert not check.passed and "the prompt names state.finalPnL" in (check.description or "")
    assert world.row(SECOND).status == "failed"


NO_IDS_IN_THE_GAME = """UPDATE public."trajectories" SET "stepsJson" = (
    SELECT json_agg(step #- '{llmCalls,0,callId}' ORDER BY place)::text
    FROM jsonb_array_elements(replace("stepsJson", '\\u0000', '\\u0020')::jsonb)
        WITH ORDINALITY AS steps (step, place))"""


def test_calls_without_ids_are_joined_by_their_texts(world: World) -> None:
    """As an agent's own client sends them: nothing but messages, on a clock that is 40 s off."""
    world.play(FIRST)
    before = frozen(world)
    world.execute(NO_IDS_IN_THE_GAME)
    world.execute(
        "UPDATE babylon_training.inference_calls SET agent_id = NULL, trajectory_id = NULL, step = NULL, "
        "created_at = created_at + interval '40 s', received_at = created_at + interval '40 s'"
    )
    _, trained = frozen(world)
    dataset = world.metadata("training_datasets", FIRST)
    joined, left = dataset["calls_joined"], dataset.get("calls_ambiguous", 0) + dataset.get("calls_repeated", 0)
    assert (joined + left, dataset["policy_gradient"] + left >= before[1]) == (48, True)
    assert joined > 36 and trained > 24  # agents of a room see the same board, and some of them say the same
    [agent, *_] = agents(world)
    with world.database.connect() as conn:
        forgotten = lineage.forget_agent(conn, agent)["calls"]
        assert 8 - left <= forgotten <= 8 and forgotten > 0
        assert conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone() == (48 - forgotten,)
