"""How a player reads a board and writes an order: the prompt, the answer, and the parser of answers.

The lines that all players of a room share come first and the player's own line last, so that the players' prompts
share a long prefix. Only a `Board` and the player's own account go into a prompt; a `Truth` cannot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast, get_args

from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.market import WIDE_SLOTS, Board, News, Order, Verb, legal_orders

SYSTEM_PROMPT = "Trade on Babylon. Answer with one JSON order."
#: Longest answer that a player may give, in tokens; a well-formed one has about 15.
ANSWER_TOKENS = 32
#: Dollars that a player begins with.
STARTING_CASH = 10_000.0


@dataclass(frozen=True, slots=True)
class Account:
    """A player's own line: cash and lifetime profit in dollars, and bets that are not settled yet.

    Attributes:
        name: of the player, where the prompt says who is asked.
        positions: the open bets in words, where the prompt lists them.
    """

    cash: float
    pnl: float
    open_bets: int = 0
    name: str = ""
    positions: tuple[str, ...] = ()


class InvalidOrderError(ValueError):
    """The answer is not an order that can be carried out on this board; the text says why."""


def prompt(board: Board, account: Account) -> list[Message]:
    """The conversation that asks a player for an order: a system and a user message."""
    lines = [f"{line.slot} yes {cents(line.yes_price)}" for line in board.predictions]
    lines += [f"{perp.ticker} {perp.price:.0f}" for perp in board.perps]
    lines += [f"news {headline(board.news)}"]
    lines += [f"you {account.cash:.0f} {account.pnl:+.0f} {account.open_bets}"]
    return [Message("system", SYSTEM_PROMPT), Message("user", "\n".join(lines))]


def headline(news: News) -> str:
    """A piece of news in words, such as `filing: A yes` or `rumor: ACME down`."""
    if news.target in WIDE_SLOTS:
        return f"{news.source}: {news.target} {'yes' if news.up else 'no'}"
    return f"{news.source}: {news.target} {'up' if news.up else 'down'}"


def answer(news: News, order: Order) -> str:
    """A well-formed answer: the news restated in a note, then the order."""
    fields = {"note": headline(news), "action": order.verb}
    if order.target is not None:
        fields["target"] = order.target
    return json.dumps(fields, separators=(",", ":"))


def parse_order(text: str, board: Board) -> Order:
    """Read an answer.

    Raises:
        InvalidOrderError: not JSON, not an object, an unknown action, or a target that this board does not have.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOrderError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidOrderError("not a JSON object")
    verb, target = fields.get("action"), fields.get("target")
    if verb not in get_args(Verb):
        raise InvalidOrderError(f"unknown action {verb!r}")
    order = Order(cast(Verb, verb), target if isinstance(target, str) else None)
    if order not in legal_orders(board):
        raise InvalidOrderError(f"{verb} cannot be carried out on {target!r}")
    return order


def cents(price: float) -> int:
    """A price in (0, 1) as whole cents."""
    return round(100 * price)
