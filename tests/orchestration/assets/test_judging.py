"""A judge through the line: off by default, paid once, missing and never 0 where it failed, written by a switch."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import lineage
from babylon_assets.ledger.scores import read_scores
from babylon_assets.orchestration import scoring
from tests.judge_service import KEY, JudgeService, judge_service
from tests.orchestration.assets.conftest import FIRST, World


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeService]:
    monkeypatch.setattr("babylon_assets.evaluation.llm_judge.FIRST_WAIT_SECONDS", 0.01)
    with judge_service() as running:
        yield running


@pytest.fixture
def judged(world: World, service: JudgeService) -> World:
    """A played window that is to be judged: eight moments of six answers."""
    world.play(FIRST)
    return world.having(
        train_rl_local=False,
        ruler_model="openai/a-judge",
        ruler_url=service.url,
        ruler_api_key=KEY,
        ruler_usd_per_million_tokens=100.0,
        reward_weights={"outcome": 1.0, "ruler": 0.5},
    )


def test_a_judge_takes_part_in_the_reward_and_is_paid_once(judged: World, service: JudgeService) -> None:
    judged.run(FIRST)
    told = judged.metadata("scored_trajectories", FIRST)
    assert (told["judge_groups"], told["judged"], told["not_judged"], told["judge_requests"]) == (8, 8, 0, 8)
    assert told["judge_cost_usd"] == pytest.approx(8 * 120 * 100 / 1e6)
    with judged.database.connect() as conn:
        kept = read_scores(conn, FIRST)
        shown = conn.execute(
            "SELECT count(*), min(reasoning), sum((metrics ->> 'cost_usd')::float8) FROM babylon_training.ruler_scores "
            "WHERE scoring_method LIKE 'ruler@1-%'"
        ).fetchone()
    assert kept["ruler"].notna().all() and kept["ruler"].nunique() > 1
    known = kept["outcome"].notna()
    assert kept.loc[known, "reward"].tolist() == pytest.approx((kept["outcome"] + 0.5 * kept["ruler"])[known].tolist())
    assert shown is not None and shown[0] == 6
    assert "characters" in shown[1]
    assert shown[2] == pytest.approx(told["judge_cost_usd"])
    before = judged.row(FIRST).dataset_id
    judged.run(FIRST)
    assert len(service.bodies) == 8
    assert judged.metadata("scored_trajectories", FIRST)["changed_trajectories"] == 0
    assert judged.row(FIRST).dataset_id == before


def test_what_could_not_be_judged_is_missing_and_is_asked_for_again_within_limits(
    judged: World, service: JudgeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MOST_ATTEMPTS", 4)
    service.fail("500", 99)
    judged.run(FIRST)
    told = judged.metadata("scored_trajectories", FIRST)
    assert (told["judged"], told["not_judged"], told["known"]) == (0, 8, 0)
    assert told["judge_failures"] == "InternalServerError (HTTP 500)"
    skipped = judged.metadata("training_datasets", FIRST)["skipped_because"]
    assert "a scorer has no number for it yet" in skipped
    assert skipped.keys() <= {"a scorer has no number for it yet", "outcome not yet known", "held out"}
    assert len(service.bodies) == 8 * 3
    with judged.database.connect() as conn:
        scores = conn.execute("SELECT score FROM babylon_training.trajectory_scores WHERE scorer = 'ruler'").fetchall()
    assert scores == [(None,)] * 6
    service.fail("500", 8 * 1 - 3)
    judged.run(FIRST)
    assert len(service.bodies) == 8 * 4
    assert judged.metadata("scored_trajectories", FIRST)["judged"] == 3
    judged.run(FIRST)
    assert len(service.bodies) == 8 * 4
    told = judged.metadata("scored_trajectories", FIRST)
    assert (told["judged"], told["not_judged"], told["judge_requests"]) == (3, 5, 32)


def test_without_a_weight_it_is_kept_and_changes_no_reward(judged: World) -> None:
    judged.having(reward_weights={"outcome": 1.0}).run(FIRST)
    with judged.database.connect() as conn:
        kept = read_scores(conn, FIRST)
    assert kept["ruler"].notna().all()
    known = kept["outcome"].notna()
    assert kept.loc[known, "reward"].tolist() == kept.loc[known, "outcome"].tolist()


def test_a_weight_without_a_judge_says_what_to_set(world: World) -> None:
    world = world.having(reward_weights={"ruler": 1.0}, train_rl_local=False)
    world.play(FIRST)
    with pytest.raises(PermanentError, match=r"REWARD_WEIGHTS names no scorer: ruler.*set RULER_MODEL"):
        world.run(FIRST)


def test_verdicts_are_written_into_the_game_by_a_switch(judged: World) -> None:
    judged.run(FIRST)
    rows = (
        'SELECT "trajectoryId", "overallScore", "rank", "normalizedScore", "judgeModel", "judgeVersion", '
        '"componentScoresJson", "reasoning", "criteriaJson", xmin::text FROM public.reward_judgments ORDER BY "rank"'
    )
    with judged.database.connect() as conn:
        assert conn.execute(rows.encode()).fetchall() == []
    judged.having(write_reward_judgments=True).run(FIRST)
    with judged.database.connect() as conn:
        written = conn.execute(rows.encode()).fetchall()
        kept = read_scores(conn, FIRST).groupby("trajectory_id")["ruler"].mean()
    assert len(written) == 6
    assert {row[0]: row[1] for row in written} == pytest.approx(kept.to_dict())
    assert (written[0][2], written[0][3], written[-1][3]) == (1, 1.0, 0.0)
    assert {row[4] for row in written} == {"openai/a-judge"}
    assert all(len(json.loads(row[6])["steps"]) == 8 and "step 0: " in row[7] for row in written)
    assert "goal" in json.loads(written[0][8])["rubric"]
    judged.having(write_reward_judgments=True).run(FIRST)
    with judged.database.connect() as conn:
        assert conn.execute(rows.encode()).fetchall() == written


def test_a_game_that_may_not_be_written_says_what_to_grant(judged: World) -> None:
    judged.execute("DROP TABLE public.reward_judgments")
    with pytest.raises(
        PermanentError, match=r"grant this role SELECT, INSERT and UPDATE.*WRITE_REWARD_JUDGMENTS=false"
    ):
        judged.having(write_reward_judgments=True).run(FIRST)


def test_a_wrong_key_fails_the_window_with_what_to_do_and_is_told_nobody(judged: World) -> None:
    with pytest.raises(PermanentError, match="correct RULER_API_KEY"):
        judged.having(ruler_api_key="sk-wrong-hunter3").run(FIRST)
    run = judged.instance.get_runs(limit=1)[0]
    assert "hunter3" not in repr(judged.instance.all_logs(run.run_id)) + (judged.row(FIRST).reason or "")


def test_a_forgotten_agent_is_in_no_judgment(judged: World) -> None:
    judged.run(FIRST)
    with judged.database.connect() as conn:
        agent = read_scores(conn, FIRST)["agent_id"].iloc[0]
        assert lineage.forget_agent(conn, agent)["judgments"] == 8
        assert conn.execute("SELECT count(*) FROM babylon_training.ruler_judgments").fetchone() == (0,)
