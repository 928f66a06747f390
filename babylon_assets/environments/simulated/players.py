"""One window of the simulated game, played by a policy and written down as the game would.

Everything of a window is written in one transaction: a process that is killed leaves a window played or not played,
never half of one. Boards follow from the seed and money from the game's own tables, so that any process can go on
where another stopped. Which policy plays, and what becomes of the record, is decided by the caller.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
import pandas as pd
from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain import rewards
from babylon_assets.domain.errors import DatabaseUnavailable, SettingsError
from babylon_assets.domain.policies import Caller, Completion, Policy, RecordingPolicy, policy_step
from babylon_assets.domain.scorers import load_scorers
from babylon_assets.environments.babylon.game_tables import copy_rows
from babylon_assets.environments.babylon.scorers import HeuristicScorer
from babylon_assets.environments.simulated import game_state, rows
from babylon_assets.environments.simulated.accounts import Player, make_bet, worth
from babylon_assets.environments.simulated.expert_players import ExpertPlayers
from babylon_assets.environments.simulated.language import InvalidOrderError
from babylon_assets.environments.simulated.market import (
    ALL_TICKERS,
    Board,
    Clock,
    Order,
    Truth,
    board_rng,
    draw_room,
    most_rooms,
    window_numbers,
)
from babylon_assets.environments.simulated.play import Chooser, Move, Reply, Room, Turn, play
from babylon_assets.environments.simulated.reference import REFERENCES, ReferencePolicy
from babylon_assets.environments.simulated.styles import Style, clock_of, style_of
from babylon_assets.ledger.inference_calls import InferenceCall, insert_calls, missing_calls
from babylon_assets.ledger.windows import upsert_window

#: How long answers that are recorded elsewhere may be on their way.
RECORDED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class PlayedWindow:
    """What a window came to: answers asked for, share of valid ones, what known policies earn on the same boards."""

    window: str
    answers: int
    valid: float
    reference: dict[str, float]
    seconds: float


def play_window(
    settings: Settings, conn: Connection[Any], window: str, policy: Policy | RecordingPolicy | ExpertPlayers
) -> PlayedWindow:
    """Play one window with a policy and write it into the game's tables, our calls and the window's reference.

    Of an expert only the texts of its answers are written, as another model's at a real game: they may be imitated.

    All of it is one transaction: the connection's own, or a part of the one that the caller has open. Only the calls
    of a policy that records its answers itself are written by that one, beforehand: the window ends when all are there,
    and those of a window that was interrupted stay as answers that no trajectory names.

    Raises:
        DatabaseUnavailable: answers that are recorded elsewhere did not arrive.
        SettingsError: so many boards a window that two would count as the same moment.
    """
    started = time.perf_counter()
    clock = _clock(settings)
    rooms = _draw(settings, window, clock)
    with conn.transaction():
        players = _enter(settings, conn, window, clock)
        moves = play(rooms, players, _chooser(policy, settings, window), style_of(settings).prompt)
        _write(settings, conn, rooms, moves, players, window, policy.name)
        _see_recorded(conn, [rows.call_id(move) for move in moves if _is_recorded(move)])
        own = [move for move in moves if move.reply.completion and move.reply.completion.token_ids]
        own = [move for move in own if not _is_recorded(move)]
        insert_calls(conn, [_call(move, settings, policy.name) for move in own])
        reference = reference_rewards(settings, rooms, window)
        upsert_window(conn, window, reference=reference)
    valid = sum(move.reply.order is not None for move in moves) / len(moves)
    return PlayedWindow(window, len(moves), valid, reference, time.perf_counter() - started)


def reference_rewards(settings: Settings, rooms: Sequence[Room], window: str) -> dict[str, float]:
    """Mean reward of each reference policy on the same boards, by the same scorers, with every outcome known.

    Of orders without a text there is nothing to judge: the scorers `ruler` and `feedback` take no part.
    """
    added = {"heuristic": HeuristicScorer(), **load_scorers(settings.rewards.scorers)}
    given, judged = settings.rewards.weights, ("ruler", "feedback")
    weights = {name: weight for name, weight in given.items() if name not in judged} or {"outcome": 0.0}
    means = {}
    for number, (name, choose) in enumerate(REFERENCES.items()):
        players = _roster(settings)
        rng = board_rng(settings.simulation.seed, window, room=number, tick=2**17)
        moves = play(rooms, players, _by_reference(choose, rng))
        steps = _scored_steps(moves, settings.rewards.perp_full_scale_percent)
        scored = rewards.score_steps(steps, weights, settings.rewards.invalid_action_reward, added)
        means[name] = float(scored["reward"].mean())
    return means


def _clock(settings: Settings) -> Clock:
    clock = clock_of(settings)
    most = most_rooms(clock.is_wide)
    if clock.rooms > most:
        raise SettingsError(
            f"{clock.rooms} markets are more than there are companies for; {most} fit. Lower SIMULATION_ROOMS"
            + (" or SIMULATION_AGENTS_PER_ROOM" if settings.simulation.company == "alone" else "")
        )
    if clock.windows.seconds / (clock.rooms * clock.ticks) < settings.datasets.moment_seconds:
        raise SettingsError(
            f"{clock.rooms} markets of SIMULATION_TICKS={clock.ticks} are {clock.rooms * clock.ticks} boards a window, "
            f"so that two would fall into one moment of MOMENT_SECONDS={settings.datasets.moment_seconds}; lower "
            "SIMULATION_ROOMS, SIMULATION_TICKS or MOMENT_SECONDS"
        )
    return clock


def _draw(settings: Settings, window: str, clock: Clock) -> list[Room]:
    return [draw_room(settings.simulation.seed, window, room, clock) for room in range(clock.rooms)]


def _roster(settings: Settings) -> list[Player]:
    """The players of the game, with nothing won or lost yet."""
    return [
        Player(
            f"{9_000_000_000_000_000 + 1000 * room + seat:018d}",
            f"trader-{room}-{seat}",
            settings.simulation.market_of(room, seat),
        )
        for room in range(settings.simulation.rooms)
        for seat in range(settings.simulation.agents_per_room)
    ]


def _enter(settings: Settings, conn: Connection[Any], window: str, clock: Clock) -> list[Player]:
    """The players with the money and the open bets that the game's tables give them; new ones are registered."""
    start, end = clock.windows.bounds(window)
    players = _roster(settings)
    known = game_state.balances(conn, [player.agent_id for player in players])
    copy_rows(conn, "User", rows.user_rows([player for player in players if player.agent_id not in known], start))
    if not game_state.has_organizations(conn):
        copy_rows(conn, "Organization", rows.organization_rows(ALL_TICKERS, start))
    for player in players:
        player.cash, player.pnl = known.get(player.agent_id, (player.cash, player.pnl))
    boards = _Redrawn(settings, clock)
    _take_up_bets(conn, players, boards)
    _resolve_markets(conn, window, end, boards)
    return players


def _take_up_bets(conn: Connection[Any], players: Sequence[Player], boards: _Redrawn) -> None:
    """Bets on markets that were still open when their window ended."""
    by_id = {player.agent_id: player for player in players}
    for bet in game_state.open_bets(conn, list(by_id)):
        board, truth = boards.of(bet.market_id, bet.market_created)
        slot = next(line.slot for line in board.predictions if line.market_id == bet.market_id)
        order = Order("buy_yes" if bet.side == "yes" else "buy_no", slot)
        by_id[bet.agent_id].bets.append(make_bet(order, board, truth))


def _resolve_markets(conn: Connection[Any], window: str, end: datetime, boards: _Redrawn) -> None:
    """Markets of earlier windows that resolve in this one."""
    outcomes = []
    for market in game_state.due_markets(conn, end):
        resolution = boards.of(market.market_id, market.created)[1].resolutions[market.market_id]
        game_state.resolve_market(conn, market, resolution)
        outcomes.append(rows.resolution_row(market.market_id, resolution, window, end))
    copy_rows(conn, "market_outcomes", outcomes)


class _Redrawn:
    """Boards of earlier windows, drawn again from the seed when a market of theirs is asked for."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._by_window: dict[str, dict[str, tuple[Board, Truth]]] = defaultdict(dict)

    def of(self, market_id: str, created: datetime) -> tuple[Board, Truth]:
        """The board that a market was on, and its truth."""
        window = self._clock.windows.of(created).id
        if window not in self._by_window:
            for room in _draw(self._settings, window, self._clock):
                for board, truth in room:
                    self._by_window[window] |= {line.market_id: (board, truth) for line in board.predictions}
        return self._by_window[window][market_id]


def _chooser(policy: Policy | RecordingPolicy | ExpertPlayers, settings: Settings, window: str) -> Chooser:
    seed, style = settings.simulation.seed, style_of(settings)
    if isinstance(policy, ExpertPlayers):
        return policy.chooser(board_rng(seed, window, room=0, tick=2**18), style.answer)
    return _asking(policy, seed, style)


def _asking(policy: Policy | RecordingPolicy, seed: int, style: Style) -> Chooser:
    """Ask a policy for each turn's order, all turns of a tick in one batch."""

    def choose(turns: Sequence[Turn]) -> list[Reply]:
        seeds = [_answer_seed(seed, turn) for turn in turns]
        conversations = [turn.messages for turn in turns]
        if isinstance(policy, RecordingPolicy):
            completions = policy.ask(conversations, seeds, list(map(_caller, turns)), max_tokens=style.answer_tokens)
        else:
            completions = policy.complete(conversations, seeds, max_tokens=style.answer_tokens)
        return [_reply(turn, completion, style) for turn, completion in zip(turns, completions, strict=True)]

    return choose


def _reply(turn: Turn, completion: Completion, style: Style) -> Reply:
    try:
        return Reply(style.parse(completion.text, turn.board), None, completion)
    except InvalidOrderError as error:
        return Reply(None, str(error), completion)


def _answer_seed(seed: int, turn: Turn) -> int:
    """A seed of its own for every answer of a game: what is sampled does not depend on who else is asked."""
    board = turn.board
    numbers = window_numbers(board.window)
    sequence = np.random.SeedSequence([seed, *numbers, board.room, board.tick, int(turn.player.agent_id)])
    return int(sequence.generate_state(1)[0])


def _by_reference(choose: ReferencePolicy, rng: np.random.Generator) -> Chooser:
    return lambda turns: [Reply(choose(turn.board, rng)) for turn in turns]


def _write(
    settings: Settings,
    conn: Connection[Any],
    rooms: Sequence[Room],
    moves: Sequence[Move],
    players: Sequence[Player],
    window: str,
    policy: str,
) -> None:
    end = settings.windows.parse(window).end
    for player in players:
        player.settle(end)
    game_state.set_balances(conn, [(player.agent_id, player.cash, player.pnl) for player in players], end)
    copy_rows(conn, "Market", rows.market_rows(rooms, end))
    copy_rows(conn, "PredictionPriceHistory", rows.prediction_price_rows(rooms))
    copy_rows(conn, "StockPrice", rows.stock_price_rows(rooms))
    copy_rows(conn, "market_outcomes", rows.outcome_rows(rooms, window, end))
    copy_rows(conn, "AgentTrade", rows.trade_rows(moves))
    copy_rows(conn, "trajectories", rows.trajectory_rows(moves, window, policy, style_of(settings).answer_tokens))


def _call(move: Move, settings: Settings, policy: str) -> InferenceCall:
    completion = move.reply.completion
    assert completion is not None
    return InferenceCall(
        call_id=rows.call_id(move),
        created_at=move.turn.board.at,
        model=settings.model_name,
        policy=policy,
        policy_step=policy_step(policy, settings.model_name),
        agent_id=move.turn.player.agent_id,
        trajectory_id=rows.trajectory_id(move),
        step=move.turn.board.tick,
        messages=move.turn.messages,
        response=completion.text,
        prompt_token_ids=completion.prompt_token_ids,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        temperature=1.0,
        seed=_answer_seed(settings.simulation.seed, move.turn),
        latency_ms=None,
        finish_reason=completion.finish_reason,
    )


def _caller(turn: Turn) -> Caller:
    return Caller(turn.player.agent_id, rows.trajectory_of(turn), turn.board.tick, turn.board.at)


def _is_recorded(move: Move) -> bool:
    return move.reply.completion is not None and move.reply.completion.call_id is not None


def _see_recorded(conn: Connection[Any], call_ids: Sequence[str]) -> None:
    """Wait until the calls that somebody else records are there."""
    deadline = time.monotonic() + RECORDED_SECONDS
    while missing := missing_calls(conn, call_ids):
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(
                f"{len(missing)} answers are not recorded after {RECORDED_SECONDS} seconds; play the window again"
            )
        time.sleep(0.05)


def _scored_steps(moves: Sequence[Move], full_scale_percent: float) -> pd.DataFrame:
    """Moves as the scorers want them, with every order's true worth."""
    return pd.DataFrame(
        [
            {
                "window": move.turn.board.window,
                "agent_id": move.turn.player.agent_id,
                "step": move.turn.board.tick,
                "timestamp_ms": int(move.turn.board.at.timestamp() * 1000),
                "pnl": move.turn.account.pnl,
                "worth": worth(cast(Order, move.reply.order), move.turn.board, move.turn.truth, full_scale_percent),
                "state": "no_trade" if move.bet is None else "final",
            }
            for move in moves
        ]
    )
