"""The real game's way to ask and to answer, in words of our own: 1 to 3 KB of text, and a JSON object with a trade.

The parts are those of the game's decision prompt: markets as questions, companies with prices, movers, news, who is
asked and how it trades, balance and profit, open positions. What all players of a room share comes first, so that their
prompts share a long prefix. Answers are read by the very parser that reads those of the real game.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.environments.babylon.answer_reader import GameAnswers
from babylon_assets.environments.babylon.schema import BABYLON_GAME
from babylon_assets.environments.simulated.accounts import NOTIONAL, STAKE
from babylon_assets.environments.simulated.language import Account, InvalidOrderError
from babylon_assets.environments.simulated.market import PERP_BASE, WIDE_SLOTS, Board, News, Order, Verb, legal_orders
from babylon_assets.environments.simulated.questions import question

#: Longest answer that a player may give, in tokens; a well-formed one has about 57.
GAME_ANSWER_TOKENS = 160
_SYSTEM = f"""You decide for an agent that trades on Babylon, a game of prediction markets and of company shares. \
Money is virtual. Weigh the news, choose at most one trade, and reply with one JSON object and nothing else, in this \
form:
{{"reasoning": "one sentence", "action": "trade", "trade": {{"type": "prediction", "market": "the question", \
"action": "buy_yes or buy_no", "amount": {STAKE:.0f}}}}}
A trade in shares is {{"type": "perp", "market": "the ticker", "action": "open_long or open_short", \
"amount": {NOTIONAL:.0f}}}. Without a trade, the action is "hold"."""
_STRATEGIES = (
    "You follow what filings say and distrust rumors.",
    "You like contrarian bets when the crowd is sure.",
    "You take many small positions and seldom hold.",
    "You trade shares more gladly than questions.",
    "You trade questions more gladly than shares.",
)
_SOURCES = {
    "filing": "A filing with the exchange shows that",
    "report": "A newspaper reports that",
    "rumor": "A rumor on the feed has it that",
}
_SPEAKERS = {"filing": "The filing", "report": "The newspaper", "rumor": "The rumor"}


def ask_as_the_game(board: Board, account: Account) -> list[Message]:
    """The conversation that asks a player for a trade: a system and a user message."""
    companies = [f"- {perp.ticker.capitalize()} ({perp.ticker}) at ${perp.price:.2f}" for perp in board.perps]
    parts = [
        "\n".join(["Open questions:", *_question_lines(board)]),
        "\n".join(["Companies:", *companies]),
        _movers(board),
        "News:\n" + news_sentence(board),
        _agent_lines(account),
    ]
    return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]


def _question_lines(board: Board) -> list[str]:
    """The questions with the price of YES in percent and, as the game has them, the shares that make it."""
    return [
        f'- "{question(line.market_id)}" YES {100 * line.yes_price:.0f}% '
        f"({1000 * (1 - line.yes_price):.0f} YES and {1000 * line.yes_price:.0f} NO shares)"
        for line in board.predictions
    ]


def _movers(board: Board) -> str:
    """The companies by how far they are from where they began."""
    moved = sorted(board.perps, key=lambda perp: -abs(perp.price - PERP_BASE))[:3]
    listed = ", ".join(f"{perp.ticker} {100 * (perp.price / PERP_BASE - 1):+.1f}%" for perp in moved)
    return f"Movers since the season began: {listed}"


def news_sentence(board: Board) -> str:
    """The board's news as a sentence."""
    return f"{_SOURCES[board.news.source]} {_what_is_new(board, board.news)}."


def _what_is_new(board: Board, news: News) -> str:
    if news.target in WIDE_SLOTS:
        return f'the answer to "{_question_of(board, news.target)}" will be {"YES" if news.up else "NO"}'
    return f"the price of {news.target} will {'rise' if news.up else 'fall'}"


def _gist(news: News) -> str:
    """Who says what of the news, in a few words: an answer is as long to train on as it is to read."""
    if news.target in WIDE_SLOTS:
        return f"{_SPEAKERS[news.source]} says {'YES' if news.up else 'NO'}."
    return f"{_SPEAKERS[news.source]} says that {news.target} will {'rise' if news.up else 'fall'}."


def _agent_lines(account: Account) -> str:
    name = account.name or "trader"
    strategy = _STRATEGIES[crc32(name.encode()) % len(_STRATEGIES)]
    positions = "\n".join(f"- {position}" for position in account.positions) or f"- {account.open_bets or 'none'}"
    return "\n".join(
        (
            f"The agent is {name}. {strategy}",
            f"Balance: ${account.cash:,.0f}",
            f"Profit and loss so far: ${account.pnl:+,.0f}",
            f"Open positions:\n{positions}",
        )
    )


def answer_as_the_game(board: Board, order: Order) -> str:
    """A well-formed answer: what the news says as the reasoning, then the trade."""
    fields: dict[str, Any] = {"reasoning": _gist(board.news), "action": "hold"}
    if order.target is not None:
        is_question = order.target in WIDE_SLOTS
        fields["action"] = "trade"
        fields["trade"] = {
            "type": "prediction" if is_question else "perp",
            "market": _question_of(board, order.target) if is_question else order.target,
            "action": order.verb,
            "amount": round(STAKE if is_question else NOTIONAL),
        }
    return json.dumps(fields)


def read_as_the_game(text: str, board: Board) -> Order:
    """Read an answer by the game's own parser.

    Raises:
        InvalidOrderError: no action, or about a market or a company that this board does not have.
    """
    at = int(board.at.timestamp() * 1000)
    facts = _ANSWERS.parse(text, (), StepFacts(board.tick, at, at, "", True, None, False, {}))
    if facts.invalid:
        raise InvalidOrderError("the game cannot carry it out")
    side = facts.detail.get("side")
    if side is None:
        if facts.action_type.lower() in ("hold", "wait"):
            return Order("hold")
        raise InvalidOrderError(f"{facts.action_type} is no trade")
    slots = {question(line.market_id).lower(): line.slot for line in board.predictions}
    slots |= {line.market_id: line.slot for line in board.predictions}
    is_question = facts.detail.get("market_type") == "prediction"
    verb = f"buy_{side}" if is_question else f"open_{side}"
    named = str(facts.detail.get("market_id" if is_question else "ticker", ""))
    order = Order(cast(Verb, verb), slots.get(named.lower()) if is_question else named.upper())
    if facts.detail.get("closes") or order not in legal_orders(board):
        raise InvalidOrderError(f"{verb} cannot be carried out on {named!r}")
    return order


#: The parser needs the rules of the game, and no record: nothing is valued by it here.
_ANSWERS = GameAnswers(cast(Any, SimpleNamespace(game=BABYLON_GAME)))


def _question_of(board: Board, slot: str) -> str:
    return question(next(line.market_id for line in board.predictions if line.slot == slot))
