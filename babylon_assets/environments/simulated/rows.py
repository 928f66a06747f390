"""What a played window leaves behind: rows of the game's tables, in the shapes that the game writes, and our calls.

Turns moves into rows and nothing else: no drawing, no playing, no connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from babylon_assets.domain.policies import Completion
from babylon_assets.domain.windows import HOURLY, parse_id
from babylon_assets.environments.simulated.accounts import Bet, Player
from babylon_assets.environments.simulated.language import ANSWER_TOKENS, SYSTEM_PROMPT
from babylon_assets.environments.simulated.market import PERP_BASE, WIDE_SLOTS, Board, PredictionLine, Truth
from babylon_assets.environments.simulated.play import Move, Room, Turn
from babylon_assets.environments.simulated.questions import question

Row = dict[str, Any]


def user_rows(players: Sequence[Player], now: datetime) -> list[Row]:
    """`"User"`: the agents, before their first window."""
    return [
        {
            "id": player.agent_id,
            "username": player.username,
            "displayName": player.username,
            "isAgent": True,
            "agentSystem": SYSTEM_PROMPT,
            "autonomousTrading": True,
            "virtualBalance": player.cash,
            "totalDeposited": player.cash,
            "updatedAt": now,
        }
        for player in players
    ]


#: How the description of a company ends: it shows that a database holds this market.
COMPANY_MARK = "of the simulated game"


def organization_rows(tickers: Sequence[str], now: datetime) -> list[Row]:
    """`"Organization"`: the companies behind the perpetuals."""
    return [
        {
            "id": ticker,
            "name": ticker.capitalize(),
            "description": f"{ticker.capitalize()} {COMPANY_MARK}",
            "type": "company",
            "initialPrice": PERP_BASE,
            "updatedAt": now,
        }
        for ticker in tickers
    ]


def market_rows(rooms: Sequence[Room], end: datetime) -> list[Row]:
    """`"Market"`: the window's prediction markets; those that resolve after its end are still open."""
    rows = []
    for board, truth in _boards(rooms):
        for line in board.predictions:
            resolves_at = truth.resolves_at[line.market_id]
            known = resolves_at < end
            rows.append(
                {
                    "id": line.market_id,
                    "question": _question(board, line),
                    "liquidity": 1000,
                    "resolved": known,
                    "resolution": truth.resolutions[line.market_id] if known else None,
                    "endDate": resolves_at,
                    "createdAt": board.at,
                    "updatedAt": resolves_at if known else board.at,
                }
            )
    return rows


def _question(board: Board, line: PredictionLine) -> str:
    is_wide = len(board.predictions) == len(WIDE_SLOTS)
    return question(line.market_id) if is_wide else f"Will slot {line.slot} of room {board.room} resolve YES?"


def prediction_price_rows(rooms: Sequence[Room]) -> list[Row]:
    """`"PredictionPriceHistory"`: the price of each prediction market when it opens."""
    return [
        {
            "id": f"{line.market_id}-open",
            "marketId": line.market_id,
            "yesPrice": line.yes_price,
            "noPrice": round(1 - line.yes_price, 2),
            "yesShares": 1000 * (1 - line.yes_price),
            "noShares": 1000 * line.yes_price,
            "liquidity": 1000,
            "eventType": "market_open",
            "source": "system",
            "createdAt": board.at,
        }
        for board, _ in _boards(rooms)
        for line in board.predictions
    ]


def stock_price_rows(rooms: Sequence[Room]) -> list[Row]:
    """`"StockPrice"`: each perpetual at its board's tick and when the board is settled."""
    rows = []
    for board, truth in _boards(rooms):
        for perp in board.perps:
            after = truth.exit_prices[perp.ticker]
            rows.append(_price_row(perp.ticker, board.at, perp.price, perp.price))
            rows.append(_price_row(perp.ticker, truth.exits_at, after, perp.price))
    return rows


def outcome_rows(rooms: Sequence[Room], window: str, end: datetime) -> list[Row]:
    """`market_outcomes`: one per perpetual of the window, and one per prediction market that resolves in it."""
    rows: list[Row] = []
    for room in rooms:
        (first, _), (_, last) = room[0], room[-1]
        rows += [
            {
                "id": f"{window}-{perp.ticker}",
                "windowId": hour_of(window),
                "stockTicker": perp.ticker,
                "startPrice": perp.price,
                "endPrice": last.exit_prices[perp.ticker],
                "changePercent": round(100 * (last.exit_prices[perp.ticker] / perp.price - 1), 2),
                "createdAt": end,
            }
            for perp in first.perps
        ]
        rows += [
            resolution_row(line.market_id, truth.resolutions[line.market_id], window, end)
            for board, truth in room
            for line in board.predictions
            if truth.resolves_at[line.market_id] < end
        ]
    return rows


def hour_of(window: str) -> str:
    """The hour that a window begins in: the game's own windows, and so its windowIds, are hours."""
    return HOURLY.of(parse_id(window)).id


def resolution_row(market_id: str, resolution: bool, window: str, now: datetime) -> Row:
    """`market_outcomes`: a prediction market that resolved in this window."""
    return {
        "id": f"{window}-{market_id}",
        "windowId": hour_of(window),
        "predictionMarketId": market_id,
        "outcome": "YES" if resolution else "NO",
        "finalProbability": float(resolution),
        "createdAt": now,
    }


def trade_rows(moves: Iterable[Move]) -> list[Row]:
    """`"AgentTrade"`: every bet, and the close of every perpetual position."""
    rows: list[Row] = []
    for move in moves:
        if move.bet is None:
            continue
        agent, bet = move.turn.player.agent_id, move.bet
        trade = f"{agent}-{bet.board.window}-{bet.board.tick:05d}"
        if bet.market_id is not None:
            rows.append(_trade(trade, agent, bet, "buy", bet.price, bet.board.at) | {"marketId": bet.market_id})
            continue
        exit_price = move.turn.truth.exit_prices[str(bet.order.target)]
        ticker = {"ticker": bet.order.target}
        rows.append(_trade(trade, agent, bet, "open", bet.price, bet.board.at) | ticker)
        rows.append(
            _trade(f"{trade}-close", agent, bet, "close", exit_price, bet.settles_at)
            | ticker
            | {"pnl": round(bet.profit, 2)}
        )
    return rows


def trajectory_rows(moves: Sequence[Move], window: str, policy: str, most_tokens: int = ANSWER_TOKENS) -> list[Row]:
    """`trajectories`: one per player, in the shape of the game's full rows, with the calls of the policy.

    Args:
        most_tokens: of an answer.
    """
    by_player = sorted(moves, key=lambda move: (move.turn.player.agent_id, move.turn.board.tick))
    return [
        _trajectory(list(episode), window, policy, most_tokens)
        for _, episode in groupby(by_player, key=lambda move: move.turn.player.agent_id)
    ]


def trajectory_id(move: Move) -> str:
    """The id of the episode that a move belongs to."""
    return trajectory_of(move.turn)


def trajectory_of(turn: Turn) -> str:
    """The id of the episode that a turn belongs to."""
    return f"{turn.player.agent_id}-{turn.board.window}"


def call_id(move: Move) -> str:
    """The id under which the answer behind a move is recorded: that of who recorded it, or one of the game's own."""
    if move.reply.completion is not None and move.reply.completion.call_id is not None:
        return move.reply.completion.call_id
    return f"{trajectory_id(move)}-{move.turn.board.tick:05d}"


def _boards(rooms: Sequence[Room]) -> Iterable[tuple[Board, Truth]]:
    return (drawn for room in rooms for drawn in room)


def _price_row(ticker: str, at: datetime, price: float, before: float) -> Row:
    return {
        "id": f"{ticker}-{int(at.timestamp() * 1000)}",
        "organizationId": ticker,
        "price": price,
        "change": round(price - before, 2),
        "changePercent": round(100 * (price / before - 1), 2),
        "timestamp": at,
    }


def _trade(row_id: str, agent: str, bet: Bet, action: str, price: float, at: datetime) -> Row:
    return {
        "id": row_id,
        "agentUserId": agent,
        "marketType": "perp" if bet.market_id is None else "prediction",
        "action": action,
        "side": bet.side,
        "amount": bet.amount,
        "price": price,
        "executedAt": at,
    }


def _trajectory(moves: list[Move], window: str, policy: str, most_tokens: int) -> Row:
    player, start, end = moves[0].turn.player, moves[0].turn.board.at, moves[-1].turn.board.at
    invalid = sum(move.reply.order is None for move in moves)
    finished = end + timedelta(seconds=1)
    steps = [_step(number, move, policy, most_tokens) for number, move in enumerate(moves)]
    return {
        "id": trajectory_id(moves[0]),
        "trajectoryId": trajectory_id(moves[0]),
        "agentId": player.agent_id,
        "startTime": start,
        "endTime": finished,
        "durationMs": int((finished - start).total_seconds() * 1000),
        "windowId": hour_of(window),
        "windowHours": 1,
        "scenarioId": HOURLY.of(start).id,
        "stepsJson": json.dumps(steps, separators=(",", ":")),
        "rewardComponentsJson": "{}",
        "metricsJson": json.dumps({"episodeLength": len(moves), "errorCount": invalid}),
        "metadataJson": json.dumps({"isTrainingData": True}),
        "totalReward": 0.0,
        "episodeLength": len(moves),
        "finalStatus": "completed_with_errors" if invalid else "completed",
        "finalBalance": round(player.cash, 2),
        "finalPnL": round(player.pnl, 2),
        "tradesExecuted": sum(move.bet is not None for move in moves),
        "postsCreated": 0,
        "createdAt": finished,
        "updatedAt": finished,
    }


def _step(number: int, move: Move, policy: str, most_tokens: int) -> Mapping[str, Any]:
    turn, at = move.turn, int(move.turn.board.at.timestamp() * 1000)
    return {
        "stepNumber": number,
        "timestamp": at,
        "reward": 0,
        "environmentState": {
            "agentBalance": round(turn.account.cash, 2),
            "agentPnL": round(turn.account.pnl, 2),
            "openPositions": turn.account.open_bets,
            "timestamp": at,
        },
        "providerAccesses": [],
        "llmCalls": [_llm_call(move, move.reply.completion, policy, most_tokens)] if move.reply.completion else [],
        "action": _action(move),
    }


def _llm_call(move: Move, completion: Completion, policy: str, most_tokens: int) -> Mapping[str, Any]:
    system, user = (message.content for message in move.turn.messages)
    return {
        "callId": call_id(move),
        "model": policy,
        "systemPrompt": system,
        "userPrompt": user,
        "response": completion.text,
        "temperature": 1.0,
        "maxTokens": most_tokens,
        "purpose": "action",
        "promptTokens": len(completion.prompt_token_ids),
        "completionTokens": len(completion.token_ids),
    }


def _action(move: Move) -> Mapping[str, Any]:
    if move.reply.order is None:
        return {"actionType": "INVALID_ACTION", "parameters": {}, "success": False, "error": move.reply.error}
    if move.bet is None:
        return {"actionType": "HOLD", "parameters": {}, "success": True}
    bet = move.bet
    if bet.market_id is None:
        about = {"marketType": "perp", "ticker": bet.order.target, "side": bet.side, "amount": bet.amount}
        return {"actionType": "OPEN_PERP_POSITION", "parameters": about, "success": True}
    about = {"marketType": "prediction", "marketId": bet.market_id, "side": bet.side, "amount": bet.amount}
    return {"actionType": "BUY_PREDICTION_SHARES", "parameters": about, "success": True}
