"""The market asks as the game does, and reads answers as the game does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.evaluations import PolicyEvaluation
from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import StepFacts
from babylon_assets.environments.simulated.accounts import Player
from babylon_assets.environments.simulated.board_answers import BoardAnswers
from babylon_assets.environments.simulated.environment import SimulatedEnvironment
from babylon_assets.environments.simulated.expert_players import ExpertPlayers
from babylon_assets.environments.simulated.game_style import answer_as_the_game, ask_as_the_game, read_as_the_game
from babylon_assets.environments.simulated.language import Account, InvalidOrderError
from babylon_assets.environments.simulated.market import Board, Clock, Order, draw_room, legal_orders
from babylon_assets.environments.simulated.market_evaluation import MarketBenchmark
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.environments.simulated.questions import question
from babylon_assets.ledger.database import Database

WINDOW = "2026-11-05T14:00"
CLOCK = Clock(4, 16, is_wide=True)
BOARDS = [drawn for room in range(4) for drawn in draw_room(0, WINDOW, room, CLOCK)]


def test_every_order_is_read_back_from_its_answer() -> None:
    for board, _ in BOARDS[::7]:
        orders = legal_orders(board)
        assert len(set(orders)) == 21
        assert [read_as_the_game(answer_as_the_game(board, order), board) for order in orders] == orders


def test_a_prompt_has_the_parts_of_the_games_own() -> None:
    for board, truth in BOARDS[::7]:
        player = Player("1", "trader-1-3", 1)
        player.place(Order("buy_yes", "C"), board, truth)
        system, user = ask_as_the_game(board, player.account)
        asked = user.content
        assert 1000 < len((system.content + asked).encode()) < 3000
        assert all(f'"{question(line.market_id)}" YES' in asked for line in board.predictions)
        assert all(f"({perp.ticker}) at $" in asked for perp in board.perps)
        assert asked.index("News:") < asked.index("trader-1-3") < asked.index("Balance: $9,950")
        assert f'- yes "{question(board.predictions[2].market_id)}" for $50' in asked
        for result in truth.exit_prices.values():
            assert f"{result:.2f}" not in asked or any(result == perp.price for perp in board.perps)


def test_players_of_a_room_share_most_of_their_prompts() -> None:
    (board, _), *_ = BOARDS
    one, other = (ask_as_the_game(board, Account(9000.0, 10.0, 0, name))[1].content for name in ("anna", "ben"))
    shared = next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert shared > 0.8 * len(one)


@pytest.mark.parametrize(
    "text",
    [
        "buy",
        "{}",
        '{"action": "dance"}',
        '{"action": "trade", "trade": {"type": "prediction", "market": "Will it rain?", "action": "buy_yes"}}',
        '{"action": "trade", "trade": {"type": "perp", "market": "NONE", "action": "open_long"}}',
        '{"action": "trade", "trade": {"type": "perp", "market": "ACME"}}',
    ],
)
def test_what_the_game_could_not_carry_out_is_invalid(text: str) -> None:
    with pytest.raises(InvalidOrderError):
        read_as_the_game(text, BOARDS[0][0])


def test_thoughts_before_the_answer_are_left_aside() -> None:
    board = BOARDS[0][0]
    text = f"<think>{{maybe}}</think> I say: {answer_as_the_game(board, Order('buy_no', 'D'))} That is it."
    assert read_as_the_game(text, board) == Order("buy_no", "D")


def test_recorded_answers_are_read_as_they_were_played(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, simulation_style="game")
    answers = BoardAnswers(SimulatedEnvironment(settings))
    board = BOARDS[20][0]
    at = int(board.at.timestamp() * 1000)
    step = StepFacts(board.tick, at, at, "", True, None, False, {})
    read = answers.parse(answer_as_the_game(board, Order("buy_no", "D")), (), step)
    assert (read.detail["market_id"], read.detail["side"]) == (board.predictions[3].market_id, "no")
    assert answers.parse('{"action": "hold", "reasoning": "x"}', (), step).action_type == "hold"


class Follower:
    """Answers every held-out board by its news, whatever it is asked."""

    name = "follower"

    def __init__(self, boards: list[Board]) -> None:
        self._boards = iter(boards)

    def complete(self, conversations: object, seeds: range, **_: object) -> list[Completion]:
        from babylon_assets.environments.simulated.market import news_order

        boards = [next(self._boards) for _ in seeds]
        return [Completion(answer_as_the_game(board, news_order(board)), [], [], [], "stop") for board in boards]


def test_the_held_out_boards_are_asked_about_in_the_same_style() -> None:
    from babylon_assets.environments.simulated import market_evaluation

    terse, game = (MarketBenchmark(Settings(simulation_style=style)) for style in ("terse", "game"))
    assert terse.version(8) != game.version(8)
    clock = market_evaluation._WIDE_CLOCK
    boards = [board for seed in market_evaluation._seeds(8) for board in market_evaluation._boards(seed, clock)]
    assert len(boards) == 8 * 4
    result: PolicyEvaluation = game.evaluate(Follower(boards), 8)  # type: ignore[arg-type]
    assert set(result.valid) == {1.0}
    assert all(reward > 0 for reward in result.rewards)


def test_a_window_of_the_game_style_is_played_into_the_games_tables(game_database: Database, tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, simulation_style="game", simulation_rooms=2, simulation_ticks=2, simulation_agents_per_room=3
    )
    with game_database.connect() as conn:
        played = play_window(settings, conn, WINDOW, ExpertPlayers())
        asked = {row[0] for row in conn.execute('SELECT question FROM public."Market"').fetchall()}
        companies = conn.execute('SELECT count(*) FROM public."Organization"').fetchone()
    assert (played.answers, played.valid, companies) == (12, 1.0, (20,))
    clock = dataclasses.replace(CLOCK, rooms=2, ticks=2)
    shown = [board for room in range(2) for board, _ in draw_room(0, WINDOW, room, clock)]
    assert asked == {question(line.market_id) for board in shown for line in board.predictions}


def test_terse_boards_are_drawn_as_before() -> None:
    board, _ = draw_room(0, WINDOW, 0, Clock(4, 16))[0]
    assert [line.slot for line in board.predictions] == ["A", "B"]
    assert [perp.ticker for perp in board.perps] == ["ACME", "BOLT"]
    assert [round(perp.price, 2) for perp in board.perps] == [perp.price for perp in board.perps]
