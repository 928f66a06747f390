"""A game's checkpoint is promoted, or refused, by the orders that it gives to the game's own recorded prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.samples import Sample
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.babylon.game_tables import copy_rows, create_game_tables
from babylon_assets.environments.small_models import ModelRecipe, make_small_model
from babylon_assets.evaluation.gate_runner import GateDecision, decide
from babylon_assets.ledger import checkpoints, evaluations
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.verdicts import verdict_on
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime.line import Line
from babylon_assets.training.backend import CheckpointPlace, TrainingRequest
from babylon_assets.training.backends.embedded.in_process import train_embedded
from babylon_assets.training.folders import checkpoint_folder, train_in_folder
from babylon_assets.training.selection import Selection
from tests.domain.rows import START, START_MS, WINDOW, call, step
from tests.environments.babylon.rows import add_trajectories, add_users, market, quote, trade, trajectory

CHAIN, LATER = "babylon-agent", "2026-10-01T01:00"
AGENTS = [f"agent{number}" for number in range(16)]
TICKS, PRICE = 8, 0.4


@dataclass(frozen=True)
class Shown:
    messages: Sequence[Message]
    answer: str


def prompt(agent: str, tick: int) -> str:
    return f"{agent}, tick {tick}. m1: Will ACME ship? Yes costs {PRICE:.2f}."


def order(side: str) -> str:
    fields = {"type": "prediction", "market": "m1", "action": f"buy_{side}", "amount": 25}
    return json.dumps({"action": "trade", "trade": fields})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives orders in the game's form, on either side as often."""
    rng, recipe = (
        np.random.default_rng(3),
        ModelRecipe(vocabulary=400, hidden=64, steps=60, batch=16, learning_rate=1e-2),
    )
    folder = tmp_path_factory.mktemp("game") / "base"
    folder.mkdir()
    texts = [
        (prompt(str(rng.choice(AGENTS)), int(rng.integers(TICKS))), str(rng.choice(("yes", "no")))) for _ in range(960)
    ]
    make_small_model(
        recipe,
        [Shown([Message("system", "Trade."), Message("user", text)], order(side)) for text, side in texts],
        folder,
    )
    return folder


@pytest.fixture
def settings(tmp_path: Path, database: Database, base: Path) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database.url,
        environment="babylon",
        base_model=str(base),
        held_out_share=0.5,
        reward_weights={"outcome": 1.0},
        min_samples_per_window=4,
        lora_rank=8,
        learning_rate=2e-2,
    )


@pytest.fixture
def line(settings: Settings, database: Database) -> Iterator[Line]:
    with database.connect() as conn:
        create_game_tables(conn)
        _play(conn)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Line(build_definitions(settings, installation=Installation(settings, database)), instance)


def _play(conn: Any) -> None:
    """Every agent is asked at every tick; each side is bought as often, and YES is right."""
    add_users(conn, *AGENTS)
    copy_rows(conn, "Market", [market("m1", question="Will ACME ship?", resolved=True, resolution=True)])
    copy_rows(conn, "PredictionPriceHistory", [quote("q1", PRICE, -1)])
    rows, trades = [], []
    for number, agent in enumerate(AGENTS):
        for tick in range(TICKS):
            side = "yes" if (number + tick) % 2 else "no"
            name, odds = f"{agent}-{tick}", (PRICE if side == "yes" else 1 - PRICE)
            action = {
                "actionType": "BUY_PREDICTION_SHARES",
                "parameters": {"marketType": "prediction", "marketId": "m1", "side": side.upper(), "amount": 25},
                "success": True,
            }
            said = call(model="qwen3-32b", userPrompt=prompt(agent, tick), response=order(side), callId=None)
            at = {"timestamp": START_MS + 60_000 * tick}
            rows.append(trajectory(name, [step(0, llmCalls=[said], action=action, **at)], agentId=agent))
            trades.append(
                trade(
                    name,
                    agentUserId=agent,
                    side=side,
                    price=odds / (1 - odds),
                    executedAt=START + timedelta(minutes=tick, seconds=1),
                )
            )
    add_trajectories(conn, *rows)
    copy_rows(conn, "AgentTrade", trades)


def test_what_learned_the_game_is_promoted_and_what_unlearned_it_is_refused(
    settings: Settings, database: Database, line: Line
) -> None:
    line.materialize(WINDOW)
    with database.connect() as conn:
        promoted = checkpoints.by_window(conn, CHAIN, WINDOW)
        assert promoted is not None
        [measured] = [e for e in evaluations.of_checkpoint(conn, promoted.id) if e.evaluation == "recorded_prompts"]
        verdict = verdict_on(conn, promoted.id)
        dataset = load_dataset(conn, promoted.dataset_id or "")
    assert verdict is not None
    assert verdict.passed, verdict.why
    assert "recorded prompts" in verdict.why
    assert "market" not in {finding["rule"] for finding in verdict.verdict["findings"]}
    assert measured.value is not None
    assert measured.value > 0  # of -0.33 for either side by chance, and 0.33 for always the right one
    refused = _judge(settings, database, promoted, [s for s in dataset.samples if "buy_no" in s.response])
    assert not refused.passed
    assert "recorded prompts is -" in refused.why


def _judge(settings: Settings, database: Database, parent: Checkpoint, samples: list[Sample]) -> GateDecision:
    """What the gate says of a checkpoint that goes on from another by imitating these answers."""
    answers = [_imitated(sample) for sample in samples]
    request = TrainingRequest(
        base_model=parent.base_model,
        chain=CHAIN,
        samples=Selection([], answers * 2, {}),
        manifest={"planted": True},
        place=CheckpointPlace(parent.step + 1, checkpoint_folder(settings, CHAIN, parent.step)),
    )
    trained = train_in_folder(settings, request, train_embedded)
    assert trained is not None
    planted = replace(
        parent,
        id=content_id({"planted": True}),
        step=parent.step + 1,
        parent_id=parent.id,
        window_id=LATER,
        path=trained.path,
        weights_sha256=trained.weights_sha256,
    )
    with database.connect() as conn:
        checkpoints.insert_checkpoint(conn, planted)
    return decide(settings, database, planted)


def _imitated(sample: Sample) -> Sample:
    import msgspec

    return msgspec.structs.replace(sample, trains_as="sft", skip_reason=None, advantage=1.0)
