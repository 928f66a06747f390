"""A small Feed that plays by the game's own arithmetic, writes its rows, and keeps the true worth of every step beside.

The truth is kept as money moves, not found in the rows: what each order cost, what it was paid, and what the prices
were when it was decided. Nothing here is taken from the package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from tests.environments.feed.tables import insert_rows

FEE, FULL_SCALE = 0.001, 0.10
Row = dict[str, Any]
#: Worth and state of a step; the worth is None where it is not known.
Truth = tuple[float | None, str]


def clip(worth: float) -> float:
    return max(-1.0, min(1.0, worth))


@dataclass
class Market:
    id: str
    yes: float = 5000.0
    no: float = 5000.0
    end: datetime | None = None


@dataclass
class Position:
    """Of a bet: shares, what they cost on average after the fee, and dollars with the fee."""

    shares: float = 0.0
    price: float = 0.0
    gross: float = 0.0


@dataclass
class Perp:
    side: str
    size: float
    entry: float
    row: Row


@dataclass
class Step:
    """A step as the recorder writes it, and what is true of it."""

    at: datetime
    action: Row
    truth: Truth
    calls: list[Row] = field(default_factory=list)


@dataclass
class Feed:
    """The game: `rows` by table, and `truth` by trajectory and step."""

    start: datetime
    rows: dict[str, list[Row]] = field(default_factory=dict)
    truth: dict[tuple[str, int], Truth] = field(default_factory=dict)
    markets: dict[str, Market] = field(default_factory=dict)
    prices: dict[str, list[tuple[datetime, float]]] = field(default_factory=dict)
    bets: dict[tuple[str, str, str], Position] = field(default_factory=dict)
    perps: dict[tuple[str, str], Perp] = field(default_factory=dict)
    open_steps: list[tuple[str, str, str, float, list[Step]]] = field(default_factory=list)
    count: int = 0
    impact_lasts: bool = False
    #: Whether the `pnl` of a position counts what it cost without the fee.
    pnl_after_fee: bool = False

    # -- what is there -------------------------------------------------------------------------------------------------

    def put(self, table: str, **row: Any) -> Row:
        self.rows.setdefault(table, []).append(row)
        return row

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}-{self.count:05d}"

    def user(self, agent: str, **flags: Any) -> None:
        self.put("User", id=agent, username=agent, isAgent=True, updatedAt=self.start, **flags)
        self.put("UserAgentConfig", id=f"c-{agent}", userId=agent, team="red", alignment="evil", updatedAt=self.start)

    def market(self, market_id: str, yes: float = 5000.0, no: float = 5000.0) -> Market:
        self.markets[market_id] = Market(market_id, yes, no)
        return self.markets[market_id]

    def company(self, ticker: str, organization: str, prices: list[tuple[float, float]]) -> None:
        """A perpetual with its prices by minute."""
        self.prices[ticker] = [(self.start + timedelta(minutes=minute), price) for minute, price in prices]
        for at, price in self.prices[ticker]:
            self._stock(organization, price, at)
        self.put(
            "PerpMarketSnapshot",
            ticker=ticker,
            organizationId=organization,
            currentPrice=prices[-1][1],
            high24h=1.0,
            low24h=1.0,
            fundingRate={},
        )

    def _stock(self, organization: str, price: float, at: datetime) -> None:
        self.put(
            "StockPrice",
            id=self.name("s"),
            organizationId=organization,
            price=price,
            change=0.0,
            changePercent=0.0,
            timestamp=at,
        )

    def quoted(self, ticker: str, at: datetime) -> float:
        return [price for time, price in self.prices[ticker] if time <= at][-1]

    def later(self, ticker: str, at: datetime) -> float | None:
        return next((price for time, price in self.prices[ticker] if time >= at + timedelta(minutes=60)), None)

    # -- trades --------------------------------------------------------------------------------------------------------

    def trade(self, agent: str, at: datetime, **row: Any) -> Row:
        return self.put("AgentTrade", id=self.name("x"), agentUserId=agent, executedAt=at, **row)

    def buy(self, agent: str, market_id: str, side: str, dollars: float, at: datetime) -> tuple[Position, float, float]:
        """Buy shares of a side; says the position, the shares and the price of one, and records the trade."""
        market, net = self.markets[market_id], dollars * (1 - FEE)
        product = market.yes * market.no
        if side == "yes":
            market.no += net
            shares, market.yes = market.yes - product / market.no, product / market.no
        else:
            market.yes += net
            shares, market.no = market.no - product / market.yes, product / market.yes
        position = self.bets.setdefault((agent, market_id, side), Position())
        position.price = (position.price * position.shares + net) / (position.shares + shares)
        position.shares, position.gross = position.shares + shares, position.gross + dollars
        self._quote(market, at)
        moment = at + timedelta(milliseconds=40)
        self.trade(
            agent,
            moment,
            marketType="prediction",
            marketId=market_id,
            action="open",
            side=side,
            amount=dollars,
            price=net / shares,
        )
        return position, shares, net / shares

    def sell(self, agent: str, market_id: str, side: str, at: datetime) -> float:
        """Sell all shares of a side; says what that realised per dollar of their cost."""
        market, position = self.markets[market_id], self.bets.pop((agent, market_id, side))
        product = market.yes * market.no
        if side == "yes":
            market.yes += position.shares
            gross, market.no = market.no - product / market.yes, product / market.yes
        else:
            market.no += position.shares
            gross, market.yes = market.yes - product / market.no, product / market.no
        proceeds = gross * (1 - FEE)
        self._quote(market, at)
        self.trade(
            agent,
            at + timedelta(milliseconds=40),
            marketType="prediction",
            marketId=market_id,
            action="close",
            side=side,
            amount=proceeds,
            price=gross / position.shares,
            pnl=proceeds - position.gross,
        )
        return (proceeds - position.gross) / position.gross

    def _quote(self, market: Market, at: datetime, **row: Any) -> None:
        yes = market.no / (market.yes + market.no)
        self.put(
            "PredictionPriceHistory",
            **{
                "id": self.name("q"),
                "marketId": market.id,
                "yesPrice": yes,
                "noPrice": 1 - yes,
                "yesShares": market.yes,
                "noShares": market.no,
                "liquidity": 10000.0,
                "eventType": "trade",
                "source": "user_trade",
                "createdAt": at + timedelta(milliseconds=30),
            }
            | row,
        )

    def settle(self, market_id: str, resolution: bool | None, at: datetime) -> dict[tuple[str, str], float]:
        """Resolve a market; says what each position earned in dollars, by agent and side."""
        market = self.markets[market_id]
        market.end = at
        mine = {(agent, side): row for (agent, name, side), row in self.bets.items() if name == market_id}
        won = "yes" if resolution else "no"
        shares = sum(row.shares for (_, side), row in mine.items() if side == won)
        lost = sum(row.shares * row.price for (_, side), row in mine.items() if side != won)
        earned: dict[tuple[str, str], float] = {}
        for (agent, side), row in mine.items():
            paid = row.shares * row.price + row.shares / shares * lost if side == won else 0.0
            counted = row.gross * (1 - FEE) if self.pnl_after_fee else row.gross
            pnl = round(0.0 if resolution is None else paid - counted, 2)
            earned[agent, side] = pnl + counted - row.gross if paid or resolution is None else -row.gross
            self.put(
                "Position",
                id=self.name("p"),
                userId=agent,
                marketId=market_id,
                side=side == "yes",
                shares=row.shares,
                avgPrice=row.price,
                outcome=None if resolution is None else side == won,
                pnl=pnl,
                resolvedAt=at,
                status="cancelled" if resolution is None else "resolved",
                updatedAt=at,
            )
        self._quote(
            market,
            at,
            yesPrice=float(resolution is True),
            noPrice=float(resolution is False),
            eventType="resolution",
            source="system",
        )
        self._close_market(market, resolved=True, resolution=resolution)
        note = {None: "NO", True: "YES", False: "NO"}[resolution]
        self.put("market_outcomes", id=self.name("o"), windowId="x", predictionMarketId=market_id, outcome=note)
        return earned

    def leave_open(self, market_id: str) -> None:
        market = self.markets[market_id]
        market.end = self.start + timedelta(days=2)
        for (agent, name, side), row in self.bets.items():
            if name == market_id:
                self.put(
                    "Position",
                    id=self.name("p"),
                    userId=agent,
                    marketId=name,
                    side=side == "yes",
                    shares=row.shares,
                    avgPrice=row.price,
                    updatedAt=self.start,
                )
        self._close_market(market, resolved=False)

    def _close_market(self, market: Market, **row: Any) -> None:
        self.put(
            "Market",
            id=market.id,
            question="?",
            liquidity=10000,
            yesShares=market.yes,
            noShares=market.no,
            endDate=market.end,
            updatedAt=market.end,
            **row,
        )

    # -- perpetuals ----------------------------------------------------------------------------------------------------

    def open_perp(self, agent: str, ticker: str, side: str, size: float, at: datetime) -> tuple[float, float, float]:
        """An order on a side; says what it realised, what of it opened something, and the entry."""
        price, moment = self.quoted(ticker, at), at + timedelta(milliseconds=40)
        organization = next(r["organizationId"] for r in self.rows["PerpMarketSnapshot"] if r["ticker"] == ticker)
        moved = price * (1.004 if side == "long" else 0.996)
        self._stock(organization, moved, at + timedelta(milliseconds=20))
        if self.impact_lasts:
            self.prices[ticker] = sorted([*self.prices[ticker], (at + timedelta(milliseconds=20), moved)])
        realised, rest = 0.0, size
        held = self.perps.get((agent, ticker))
        if held is not None and held.side != side:
            part = min(size, held.size)
            realised = part * self._returned(held, price)
            held.size, rest = held.size - part, size - part
            held.row["size"] = held.size or part
            if held.size <= 0:
                held.row["closedAt"] = moment - timedelta(milliseconds=10)
                del self.perps[agent, ticker]
                held = None
        if rest > 0 and held is not None:
            held.entry = (held.entry * held.size + price * rest) / (held.size + rest)
            held.size += rest
            held.row |= {"entryPrice": held.entry, "size": held.size}
        elif rest > 0:
            row = self.put(
                "PerpPosition",
                id=self.name("pp"),
                userId=agent,
                ticker=ticker,
                organizationId=organization,
                side=side,
                entryPrice=price,
                currentPrice=price,
                size=rest,
                liquidationPrice=0.0,
                unrealizedPnL=0.0,
                unrealizedPnLPercent=0.0,
                leverage=1,
                openedAt=moment - timedelta(milliseconds=10),
                lastUpdated=moment,
                closedAt=None,
            )
            self.perps[agent, ticker] = Perp(side, rest, price, row)
        self.trade(agent, moment, marketType="perp", ticker=ticker, action="open", side=side, amount=size, price=100.0)
        return realised, rest, price

    def close_perp(self, agent: str, ticker: str, at: datetime) -> float:
        """Close a position; says the share of its size that it returned."""
        held, price = self.perps.pop((agent, ticker)), self.quoted(ticker, at)
        moment = at + timedelta(milliseconds=40)
        held.row["closedAt"] = moment - timedelta(milliseconds=10)
        returned = self._returned(held, price)
        self.trade(
            agent,
            moment,
            marketType="perp",
            ticker=ticker,
            action="close",
            side=held.side,
            amount=held.size,
            price=price,
            pnl=held.size * returned,
        )
        return returned

    def _returned(self, held: Perp, price: float) -> float:
        return (price / held.entry - 1) * (1 if held.side == "long" else -1)

    # -- trajectories --------------------------------------------------------------------------------------------------

    def tick(self, agent: str, steps: list[Step], **changes: Any) -> str:
        """Write a tick of an agent as the live recorder does."""
        name = self.name("t")
        end = steps[-1].at + timedelta(seconds=5) if steps else self.start + timedelta(minutes=1)
        written = [step_json(number, step) for number, step in enumerate(steps)]
        self.truth |= {(name, number): step.truth for number, step in enumerate(steps)}
        self.put(
            "trajectories",
            **{
                "id": f"row-{name}",
                "trajectoryId": name,
                "agentId": agent,
                "startTime": steps[0].at - timedelta(seconds=2) if steps else self.start,
                "endTime": end,
                "durationMs": 7000,
                "windowId": f"{self.start:%Y-%m-%dT%H}:00",
                "scenarioId": "s",
                "stepsJson": json.dumps(written),
                "rewardComponentsJson": "{}",
                "metricsJson": '{"tradesExecuted":0}',
                "metadataJson": json.dumps({"archetype": "trader", "scenarioProfile": "calm", "gameKnowledge": {}}),
                "archetype": "trader",
                "totalReward": 0.1,
                "episodeLength": len(steps),
                "finalStatus": "completed",
                "finalBalance": 950.0,
                "finalPnL": -3.1,
                "updatedAt": end,
            }
            | changes,
        )
        return name

    def write(self, conn: psycopg.Connection[Any]) -> None:
        for table, rows in self.rows.items():
            insert_rows(conn, table, rows)


def call(response: str, prompt: str = "P", **changes: Any) -> Row:
    return {
        "model": "huggingface",
        "systemPrompt": "S",
        "userPrompt": prompt,
        "response": response,
        "temperature": 0.7,
        "maxTokens": 1000,
        "purpose": "action",
        "actionType": "multi_step_decision",
        "latencyMs": 640,
        "reasoningAvailable": False,
        "reasoningSource": "none",
    } | changes


def step_json(number: int, step: Step) -> Row:
    at = int(step.at.timestamp() * 1000)
    state = {"timestamp": at, "agentBalance": 950, "agentPoints": 0, "agentPnL": -3.1, "openPositions": 1}
    return {
        "stepNumber": number,
        "timestamp": at,
        "environmentState": state,
        "providerAccesses": [],
        "reward": 0.1 if step.action.get("success") else -0.1,
        "llmCalls": step.calls,
        "action": step.action,
    }


def order(side: str, result_side: str, market: str, amount: Any = 40, **more: Any) -> Row:
    """A TRADE that was carried out; the ticker of a perpetual stands in `marketId`."""
    perp = "long" in side or "short" in side or "position" in side
    parameters = {"marketType": "perp" if perp else "prediction", "marketId": market, "side": side, "amount": amount}
    result = {"success": True, "side": result_side, "error": None, "shares": None, "ticker": None, "marketId": None}
    result |= {"ticker": market} if perp else {"marketId": market, "shares": 48.27}
    return {
        "actionType": "TRADE",
        "actionName": "TRADE",
        "success": True,
        "reasoning": "cheap",
        "parameters": parameters | {"reasoning": "cheap"},
        "result": result,
    } | more
