"""Playing one window: boards are shown, orders come back, bets are placed and settled.

The same play serves the policy that is being trained and the reference policies, so that their results compare.
Rooms are independent and play side by side: at each tick every player of every room is asked once, in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.simulated.accounts import Bet, Player
from babylon_assets.environments.simulated.language import Account, InvalidOrderError, prompt
from babylon_assets.environments.simulated.market import Board, Order, Truth

Room = list[tuple[Board, Truth]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a player is asked: the board, its account before the action, and its number in the batch."""

    player: Player
    board: Board
    truth: Truth
    account: Account
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a player answers: an order, or why there is none; and the completion behind it, if a model answered."""

    order: Order | None
    error: str | None = None
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One turn with its reply and the bet that came of it (None for a hold or an invalid order)."""

    turn: Turn
    reply: Reply
    bet: Bet | None


Chooser = Callable[[Sequence[Turn]], list[Reply]]
Prompt = Callable[[Board, Account], list[Message]]


def play(rooms: Sequence[Room], players: Sequence[Player], choose: Chooser, prompt: Prompt = prompt) -> list[Move]:
    """Play every tick of a window; the players' accounts are changed in place."""
    moves: list[Move] = []
    for tick in range(len(rooms[0])):
        turns = [_turn(player, *rooms[player.room][tick], prompt) for player in players]
        moves += [_carry_out(turn, reply) for turn, reply in zip(turns, choose(turns), strict=True)]
    return moves


def _turn(player: Player, board: Board, truth: Truth, prompt: Prompt) -> Turn:
    player.settle(board.at)
    account = player.account
    return Turn(player, board, truth, account, prompt(board, account))


def _carry_out(turn: Turn, reply: Reply) -> Move:
    if reply.order is None:
        return Move(turn, reply, None)
    try:
        return Move(turn, reply, turn.player.place(reply.order, turn.board, turn.truth))
    except InvalidOrderError as error:
        return Move(turn, Reply(None, str(error), reply.completion), None)
