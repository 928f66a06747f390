"""The end of the line: what is measured, promoted and refused, and what the next window then trains from."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.display_text import format_number
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon.writeback import served
from babylon_assets.environments.simulated.base_model import ensure_base_model
from babylon_assets.evaluation.served_results import reward_agreement
from babylon_assets.evaluation.window_evaluation import EvaluatedWindow
from babylon_assets.ledger import checkpoints, evaluations, promotions, verdicts
from babylon_assets.ledger.adapter_weights import weights_sha256
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.orchestration.assets import checkpoint_evaluations
from babylon_assets.serving.engine.engine import Engine
from babylon_assets.training.window_training import train_window
from tests.evaluation.test_off_policy import perturb
from tests.orchestration.assets.conftest import FIRST, SECOND, THIRD, World

CHAIN = "babylon-agent"


@pytest.fixture
def trained(world: World) -> World:
    world.play(FIRST)
    world.run(FIRST)
    return world


def chain(world: World) -> list[Checkpoint]:
    with world.database.connect() as conn:
        return checkpoints.chain(conn, CHAIN)


def served_steps(world: World) -> list[int]:
    """The steps that were live, in order."""
    steps = {one.id: one.step for one in chain(world)}
    with world.database.connect() as conn:
        return [steps[row.to_id] for row in promotions.history(conn, CHAIN)]


def spoil(world: World, checkpoint: Checkpoint) -> None:
    """Weights that a training might have left, recorded as it records them."""
    perturb(Path(checkpoint.path), 1.0)
    recorded = weights_sha256(Path(checkpoint.path))
    world.execute(
        "UPDATE babylon_training.model_checkpoints SET weights_sha256 = %s WHERE id = %s", recorded, checkpoint.id
    )


def test_a_checkpoint_is_measured_judged_and_promoted(trained: World) -> None:
    measured, judged = (trained.metadata(name, FIRST) for name in ("checkpoint_evaluations", "promoted_model"))
    assert measured["checkpoint"] == judged["checkpoint"] == judged["served"] == f"{CHAIN}@1"
    figures = {record.data["figure"]: record.data for record in measured["policies"].records}
    columns = [column.name for column in measured["policies"].schema.columns]
    assert columns == ["figure", "this", "its parent", "served", "base model"]
    assert "recorded reward" not in figures  # the simulated market has no recorded prompts
    assert figures["policy"] == {
        **{"figure": "policy", "this": f"{CHAIN}@1"},
        **dict.fromkeys(("its parent", "served", "base model"), f"{CHAIN}@0"),
    }
    assert figures["market reward"]["this"] == format_number(measured["market_reward"], padded=True)
    for policy in ("this", "its parent", "served", "base model"):  # the site knows all of them
        low, high = map(float, figures["market reward, 95% interval"][policy][1:-1].split(", "))
        assert low <= float(figures["market reward"][policy]) <= high
    gain = format_number(measured["gain_on_base"], padded=True)
    for policy in ("its parent", "served", "base model"):  # all three are the base model
        assert figures["this gains on it"][policy].startswith(f"{gain} [")
    assert "image/svg+xml" in measured["evaluations"]
    gained = measured["market_reward"] - float(figures["market reward"]["base model"])
    assert measured["gain_on_base"] == pytest.approx(gained, abs=2e-4)  # both are rounded for people
    assert 0 < measured["market_valid_share"] <= 1
    assert (judged["status"], judged["promoted"], judged["served_step"]) == ("promoted", 1, 1)
    unknown, *applied = [record.data for record in judged["verdict"].records]
    assert judged["why"] == f"{len(applied)} of {1 + len(applied)} rules hold, 1 has no evidence"
    assert (unknown["rule"], unknown["holds"]) == ("preference", "no evidence")
    assert all(rule["holds"] == "yes" and rule["bound"] for rule in applied)
    assert trained.check("checkpoint_evaluations", "measured").passed
    assert trained.check("promoted_model", "gate").passed
    with trained.database.connect() as conn:
        [row] = promotions.history(conn, CHAIN)
        verdict = verdicts.verdict_on(conn, row.to_id)
    assert row.promoted_by == "gate" and row.verdict is not None
    assert verdict is not None and verdict.verdict == row.verdict
    known = {"rewards"} if agreement(trained, FIRST) is not None else set()
    assert {finding["rule"] for finding in row.verdict["findings"]} == {
        *("finite", "window", "hygiene", "market", "valid", "preference"),
        *known,
    }


def test_of_a_policy_without_an_off_policy_estimate_it_is_said_why() -> None:
    def estimate(refused: str | None) -> Evaluation:
        results: dict[str, object] = {"refused": refused, "preferences": {}, "effective_samples": 60.0, "answers": 75}
        value = None if refused else 0.4
        return Evaluation(checkpoint_id="c", evaluation="off_policy", version="1", value=value, results=results)

    evaluated = EvaluatedWindow(
        checkpoint=None,
        market={},
        recorded={},
        off_policy={"promoted": estimate(None), "parent": estimate(None), "base": estimate("41% are needed")},
        policies={"promoted": f"{CHAIN}@1", "parent": f"{CHAIN}@1", "base": f"{CHAIN}@0"},
    )
    shown = checkpoint_evaluations._metadata(evaluated)
    assert shown["no_off_policy_estimate"].value == f"{CHAIN}@0: 41% are needed"
    drawn = str(checkpoint_evaluations._picture(evaluated)["evaluations"].value)
    svg = b64decode(drawn.partition("base64,")[2].removesuffix(")")).decode()
    assert svg.count("<circle") == 1 and f"{CHAIN}@1 (its parent, served)" in svg


def test_nothing_is_measured_or_judged_twice(trained: World) -> None:
    def kept() -> list[object]:
        with trained.database.connect() as conn:
            found = [one for made in chain(trained) for one in evaluations.of_checkpoint(conn, made.id)]
            return [*found, *promotions.history(conn, CHAIN), *verdicts.of_chain(conn, CHAIN)]

    before = kept()
    assert len(before) == 4  # base and checkpoint on the market, the verdict, the promotion
    trained.run(FIRST)
    assert kept() == before
    assert trained.metadata("promoted_model", FIRST)["status"] == "promoted"


def test_a_thin_window_passes_through_and_the_live_one_stays(trained: World) -> None:
    trained.play(SECOND)
    trained.execute(
        'DELETE FROM public."trajectories" WHERE "windowId" = %s AND id <> (SELECT max(id) FROM public."trajectories")',
        SECOND,
    )
    trained.run(SECOND)
    measured, judged = (trained.metadata(name, SECOND) for name in ("checkpoint_evaluations", "promoted_model"))
    assert measured["status"] == judged["status"] == "passed through"
    [market] = [record.data for record in measured["policies"].records if record.data["figure"] == "market reward"]
    reward = trained.metadata("checkpoint_evaluations", FIRST)["market_reward"]
    assert market["served"] == format_number(reward, padded=True)
    assert judged["served"] == f"{CHAIN}@1"
    assert trained.check("checkpoint_evaluations", "measured").passed
    assert trained.check("promoted_model", "gate").passed


def test_a_bad_checkpoint_is_refused_with_the_reason_and_never_a_parent(trained: World) -> None:
    trained.play(SECOND)
    trained.having(train_rl_local=False).run(SECOND)  # its dataset, and nothing more
    bad = train_window(trained.settings, trained.database, SECOND).checkpoint
    assert bad is not None and bad.step == 2
    spoil(trained, bad)
    trained.run(SECOND)
    judged = trained.metadata("promoted_model", SECOND)
    assert (judged["status"], judged["promoted"], judged["served"]) == ("rejected", 0, f"{CHAIN}@1")
    assert "worse with confidence" in judged["why"]
    first_rule = judged["verdict"].records[0].data
    assert (first_rule["rule"], first_rule["holds"]) == ("market", "no")
    assert first_rule["bound"] == "rejected only if the whole 95% interval is below 0"
    check = trained.check("promoted_model", "gate")
    assert not check.passed and check.severity.value == "WARN"
    trained.play(THIRD)
    trained.run(THIRD)
    _, first, second, third = chain(trained)
    assert second.step == 2 and second.rejected is not None
    rules = len(judged["verdict"].records)
    unmet = f"2 of {rules} rules do not hold, 1 has no evidence"
    assert judged["why"] == f"{unmet}: {second.rejected.removeprefix('refused: ')}"
    assert (third.step, third.parent_id, third.rejected) == (3, first.id, None)
    assert served_steps(trained) == [1, 3]
    assert Path(third.path).name == "0003"


def test_what_a_killed_run_left_unjudged_is_judged_before_the_next_training(trained: World) -> None:
    trained.play(SECOND)
    trained.having(train_rl_local=False).run(SECOND)
    train_window(trained.settings, trained.database, SECOND)  # and killed before the gate
    trained.play(THIRD)
    trained.having(train_rl_local=False).run(THIRD)
    with pytest.raises(PermanentError, match=f"{CHAIN}@2 has no verdict yet"):
        train_window(trained.settings, trained.database, THIRD)
    trained.run(THIRD)
    assert served_steps(trained) == [1, 2, 3]
    trained.run(SECOND)  # its own line, later: nothing more is to be said
    assert served_steps(trained) == [1, 2, 3]
    assert trained.metadata("promoted_model", SECOND)["promoted"] == 1


def test_without_the_gate_everything_is_promoted(world: World) -> None:
    world = world.having(gate=False)
    for window in (FIRST, SECOND):
        world.play(window)
        world.run(window)
    assert served_steps(world) == [1, 2]
    assert "GATE is false" in world.metadata("promoted_model", SECOND)["why"]
    with world.database.connect() as conn:
        assert verdicts.of_chain(conn, CHAIN) == []


def test_the_game_is_told_what_is_live_where_that_is_allowed(trained: World) -> None:
    def told() -> tuple[tuple[str, str] | None, int]:
        with trained.database.connect() as conn:
            marked = conn.execute('SELECT count(*) FROM public.trajectories WHERE "usedInTraining"').fetchone()
            return served(conn), marked[0] if marked else 0

    assert told() == (None, 0)
    allowed = trained.having(write_trained_models=True)
    allowed.run(FIRST)
    picked, marked = told()
    assert picked is not None and picked[1] == f"{CHAIN}@1"
    assert marked == 6
    assert trained.metadata("promoted_model", FIRST)["trained_models"] == f"{CHAIN}@1"
    fingerprint = trained.row(FIRST).dataset_id
    allowed.run(FIRST)  # the marks changed the source's rows, and not what is trained on
    assert trained.row(FIRST).dataset_id == fingerprint
    assert served_steps(trained) == [1]


def test_a_live_policy_that_misbehaves_is_rolled_back_where_that_is_on(world: World) -> None:
    world = world.having(simulation_ticks=16, auto_rollback=True)
    world.play(FIRST)
    world.run(FIRST)
    made = chain(world)[1]
    spoil(world, made)
    from babylon_assets.environments.simulated.players import play_window

    broken = Engine(Path(made.base_model))
    broken.activate(Path(made.path), f"{CHAIN}@1")
    with world.database.connect() as conn:
        play_window(world.settings, conn, SECOND, broken)
    world.run(SECOND)
    with world.database.connect() as conn:
        last = promotions.history(conn, CHAIN)[1]
        live = promotions.promoted(conn, CHAIN)
    assert (last.kind, last.promoted_by) == ("rollback", "auto-rollback")
    assert "its share of valid actions is" in last.why
    assert live is not None and live.step == 0
    assert chain(world)[1].rejected == f"rolled back to {CHAIN}@0: {last.why}"


def agreement(world: World, window: str) -> float | None:
    """How a window's rewards agree with its trades: the boards are those of the hours before now."""
    with world.database.connect() as conn:
        return reward_agreement(conn, window)


def test_a_poisoned_window_is_trained_and_refused_and_never_served(trained: World) -> None:
    """Somebody turns the rewards around, and training believes them."""
    trained.play(SECOND)
    trained.having(reward_weights={"outcome": -1.0}).run(SECOND)
    if agreement(trained, SECOND) is None:
        pytest.skip(
            "of this hour's trades fewer than 16 are known, so that nothing can say that they were turned around"
        )
    judged = trained.metadata("promoted_model", SECOND)
    made = trained.metadata("model_checkpoints", SECOND)
    assert made["status"] == "trained" and made["trained_tokens"] > 0
    assert (judged["status"], judged["served"]) == ("rejected", f"{CHAIN}@1")
    assert "correlate -1.00 with what the actions were worth: they were turned around" in judged["why"]
    trained.play(THIRD)
    trained.run(THIRD)
    assert chain(trained)[3].parent_id == chain(trained)[1].id
    assert served_steps(trained) == [1, 3]


@pytest.mark.soak
def test_what_is_planted_at_the_demos_scale_is_refused_and_never_served(world: World) -> None:
    """With the settings and the base model of `babylon demo`: six hours, one poisoned, one perturbed, one more."""
    *ordinary, poisoned, perturbed, last = HOURLY.closed(datetime.now(UTC), 9)
    base = ensure_base_model(world.settings.home, open_policy=Engine)
    settings = Settings(home=world.settings.home, base_model=str(base))
    demo = replace(world, settings=settings, engine=Engine(base, f"{CHAIN}@0"))
    for window in ordinary:
        play_live(demo, window)
        demo.run(window)
    before = served_steps(demo)
    best = chain(demo)[before[-1]]
    play_live(demo, poisoned)
    demo.having(reward_weights={"outcome": -1.0, "heuristic": -0.1}).run(poisoned)
    assert demo.metadata("model_checkpoints", poisoned)["status"] == "trained"
    assert "they were turned around" in demo.metadata("promoted_model", poisoned)["why"]
    play_live(demo, perturbed)
    demo.having(train_rl_local=False).run(perturbed)
    bad = train_window(settings, demo.database, perturbed).checkpoint
    assert bad is not None and bad.parent_id == best.id
    spoil(demo, bad)
    demo.run(perturbed)
    assert "worse with confidence" in demo.metadata("promoted_model", perturbed)["why"]
    assert served_steps(demo) == before
    play_live(demo, last)
    demo.run(last)
    assert chain(demo)[-1].parent_id == best.id
    assert [row.rejected is None for row in chain(demo)[-3:-1]] == [False, False]


def play_live(world: World, window: str) -> None:
    """Play a window with the policy that is live."""
    with world.database.connect() as conn:
        made = promotions.promoted(conn, CHAIN)
    if made is not None and made.step:
        world.engine.activate(Path(made.path), f"{CHAIN}@{made.step}")
    world.play(window)
