"""A model that is new to the game: an expert plays first and is imitated, then the model plays what it learned."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from babylon_assets.cli.simulated_game import expert_plays, play_once
from babylon_assets.domain.windows import HOURLY
from babylon_assets.ledger.windows import upsert_window
from babylon_assets.serving.client import GatewayPolicy
from tests.orchestration.assets.conftest import FIRST, SECOND, World


def play_as_the_commands_do(world: World, window: str) -> None:
    """No gateway answers: whoever is asked through it would fail."""
    with GatewayPolicy("http://127.0.0.1:1/v1", "babylon-agent") as players, world.database.connect() as conn:
        assert play_once(world.settings, conn, players, window) is not None


def test_what_an_expert_answers_first_is_imitated(world: World) -> None:
    new = world.having(simulation_expert_windows=1, learning_rate=5e-3, lora_rank=8)
    play_as_the_commands_do(new, FIRST)
    with new.database.connect() as conn:
        assert conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone() == (0,)
        [(text,)] = conn.execute('SELECT "stepsJson" FROM public.trajectories LIMIT 1').fetchall()
        assert not expert_plays(new.settings, conn)
    call = json.loads(text)[0]["llmCalls"][0]
    assert call["model"] == "simulated-expert"
    assert set(json.loads(call["response"])) >= {"note", "action"}
    assert "\nnews " in call["userPrompt"]  # the very prompt that the model is asked with afterwards
    new.run(FIRST)
    shown = new.metadata("model_checkpoints", FIRST)
    assert shown["method"] == "sft"
    assert shown["trained_tokens"] > 0
    new.play(SECOND)
    new.run(SECOND)
    assert new.metadata("model_checkpoints", SECOND)["method"] == "policy_gradient"


def test_an_expert_plays_for_a_model_that_was_not_taught_the_game(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with world.database.connect() as conn:
        assert not expert_plays(world.settings, conn)  # its base model was made here, and taught
        assert not expert_plays(world.settings.replace(base_model=None), conn)
        other = world.settings.replace(base_model=str(tmp_path / "other"))
        assert expert_plays(other, conn)
        assert not expert_plays(other.replace(simulation_expert_windows=0), conn)


def test_an_expert_plays_until_there_is_enough_to_imitate(world: World) -> None:
    large = world.having(simulation_style="game", simulation_ticks=8, simulation_rooms=4, simulation_agents_per_room=8)
    with world.database.connect() as conn:
        for number, window in enumerate(HOURLY.closed(datetime.now(UTC), 5)):
            assert expert_plays(large.settings, conn) == (number < 4)
            upsert_window(conn, window, reference={"oracle": 0.5})
