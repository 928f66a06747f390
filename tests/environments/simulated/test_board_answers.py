"""An answer that was carried out is worth, to whoever reads it afterwards, what the record says that it was worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from babylon_assets.config.settings import Settings
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.trajectories import StepFacts
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.environments.simulated.environment import SimulatedEnvironment
from babylon_assets.environments.simulated.game_file import note_game
from babylon_assets.environments.simulated.market import market_id
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.environments.simulated.questions import question
from babylon_assets.ledger.database import Database
from tests.environments.simulated.test_players import FIRST, Follower, records


@dataclass
class Episode:
    window: str
    trajectory_id: str
    agent_id: str
    facts: list[StepFacts]


def test_answers_are_worth_what_their_orders_came_to(game_database: Database) -> None:
    environment = SimulatedEnvironment(Settings(simulation_seed=3))
    reader = environment.answers
    assert reader is not None
    with game_database.connect() as conn:
        play_window(environment.settings, conn, FIRST, Follower())
    played = records(game_database, FIRST)
    answered = [
        Episode(
            FIRST,
            record.trajectory_id,
            record.agent_id,
            [
                reader.parse(sample.response, sample.messages, replace(fact, action_type="another", detail={}))
                for sample, fact in zip(record.samples, record.facts, strict=True)
            ],
        )
        for record in played
    ]
    with game_database.connect() as conn:
        carried_out = environment.value_steps(conn, FIRST, steps_frame(played, environment.detail))
        read = reader.value(conn, FIRST, steps_frame(answered, environment.detail))
    assert list(read["state"]) == list(carried_out["state"])
    assert (read["state"] == "final").sum() > 400
    assert np.allclose(read["worth"], carried_out["worth"], equal_nan=True, atol=1e-12)


def test_orders_are_read_by_the_clock_that_the_game_was_begun_with(game_database: Database, tmp_path: Path) -> None:
    """The game of a language model has half the ticks: by the usual clock its orders are of other rooms' boards."""
    begun = {"simulation_seed": 3, "simulation_ticks": 8, "simulation_agents_per_room": 2}
    note_game(tmp_path, {**begun, "base_model": "x"})
    with game_database.connect() as conn:
        play_window(Settings(**begun), conn, FIRST, Follower())
    reader = SimulatedEnvironment(Settings(home=tmp_path)).answers
    assert reader is not None
    usual = SimulatedEnvironment(Settings()).answers
    assert usual is not None and usual.version != reader.version  # what was measured by another clock is measured again
    for record in records(game_database, FIRST):
        for sample, fact in zip(record.samples, record.facts, strict=True):
            read = reader.parse(sample.response, sample.messages, replace(fact, action_type="another", detail={}))
            assert read.invalid == fact.invalid, sample


def test_what_is_no_order_of_the_board_is_invalid(game_database: Database) -> None:
    environment = SimulatedEnvironment(Settings(simulation_seed=3))
    reader = environment.answers
    assert reader is not None
    with game_database.connect() as conn:
        play_window(environment.settings, conn, FIRST, Follower())
    [record, *_] = records(game_database, FIRST)
    orders = ['{"action":"hold"}', '{"action":"buy_yes","target":"B"}', '{"action":"open_long","target":"ACME"}']
    wrong = ["[]", "{", '{"action":"sell"}', '{"action":"buy_yes","target":"C"}', '{"action":"open_long","target":{}}']
    wrong.append('{"action":"open_long","target":"DYNE"}')  # of another room
    read = [reader.parse(text, [], record.facts[0]) for text in (*orders, *wrong)]
    assert [step.invalid for step in read] == [False] * 3 + [True] * len(wrong)


def test_an_action_names_its_market_as_the_answer_does() -> None:
    """On a narrow board by its slot, on a wide one by its question; an id that is not the market's own stays."""
    at_ms, index = 1_795_926_346_875, 1
    market = market_id(at_ms, 3, index)
    step = make_step(
        0, at_ms, at_ms, None, None, "BUY", "prediction", market, None, "no", 50.0, True, None, invalid=False
    )
    narrow, wide = (SimulatedEnvironment(Settings(simulation_style=style)) for style in ("terse", "game"))
    assert narrow.describe_action(step) == "BUY no B 50"
    assert wide.describe_action(step) == f'BUY no "{question(market)}" 50'
    other = replace(step, detail={**step.detail, "market_id": "m-1"})
    assert narrow.describe_action(other) == wide.describe_action(other) == "BUY no m-1 50"
