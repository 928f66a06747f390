"""Prompts and answers of the simulated game."""

from __future__ import annotations

import dataclasses

import pytest

from babylon_assets.environments.simulated.language import (
    Account,
    InvalidOrderError,
    answer,
    headline,
    parse_order,
    prompt,
)
from babylon_assets.environments.simulated.market import Board, Clock, Truth, draw_room, legal_orders


@pytest.fixture
def drawn() -> tuple[Board, Truth]:
    return draw_room(0, "2026-11-05T14:00", 0, Clock(4, 16))[3]


def test_every_legal_order_survives_being_answered_and_parsed(drawn: tuple[Board, Truth]) -> None:
    board, _ = drawn
    for order in legal_orders(board):
        assert parse_order(answer(board.news, order), board) == order


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ('{"action":"hold"', "not JSON"),
        ("[]", "not a JSON object"),
        ('{"action":"sell_all"}', "unknown action"),
        ('{"action":null}', "unknown action"),
        ('{"action":["hold"]}', "unknown action"),
        ('{"action":"buy_yes"}', "cannot be carried out"),
        ('{"action":"buy_yes","target":"Z"}', "cannot be carried out"),
        ('{"action":"open_long","target":"A"}', "cannot be carried out"),
        ('{"action":"buy_yes","target":3}', "cannot be carried out"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_not_an_order_is_refused_with_the_reason(drawn: tuple[Board, Truth], text: str, why: str) -> None:
    with pytest.raises(InvalidOrderError, match=why):
        parse_order(text, drawn[0])


def test_players_of_a_board_share_everything_but_the_last_line(drawn: tuple[Board, Truth]) -> None:
    texts = [prompt(drawn[0], Account(cash, cash - 10_000))[-1].content for cash in (9_000.0, 12_345.6)]
    shared, own = zip(*(text.rsplit("\n", 1) for text in texts), strict=True)
    assert len(set(shared)) == 1
    assert own == ("you 9000 -1000 0", "you 12346 +2346 0")


def test_a_prompt_says_what_the_board_shows(drawn: tuple[Board, Truth]) -> None:
    board, _ = drawn
    text = prompt(board, Account(10_000, 0))[-1].content
    assert headline(board.news) in text
    assert all(line.slot in text and str(round(100 * line.yes_price)) in text for line in board.predictions)
    assert all(perp.ticker in text for perp in board.perps)


def test_a_board_has_no_field_of_the_truth(drawn: tuple[Board, Truth]) -> None:
    fields = {field.name for kind in (Board, type(drawn[0].predictions[0])) for field in dataclasses.fields(kind)}
    assert not fields & {field.name for field in dataclasses.fields(Truth)}
