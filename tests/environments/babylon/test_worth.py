"""What every step of an hour of Babylon was worth, against what a small game that writes its rows knows.

The game is that of November 2025: a constant-product market that charges the odds, a share that pays 1, perpetuals at
the price of the moment, live rows without amounts or calls beside full ones. Nothing of it is taken from the package.
"""

from __future__ import annotations

import random
from datetime import timedelta
from math import ceil
from typing import Any

import numpy as np
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.trajectories import TrajectoryRecord
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.babylon.game_tables import copy_rows
from tests.domain.rows import START, WINDOW, call
from tests.environments.babylon.rows import (
    Connection,
    add_trajectories,
    add_users,
    market,
    organization,
    quote,
    stock_price,
    trade,
    trajectory,
)

AGENTS = [f"10000000000000{n:04d}" for n in range(8)]
Truth = tuple[float | None, str]


class Babylon:
    """The game: rows by table, and what is true of each step, by trajectory and step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.truth: dict[tuple[str, int], Truth] = {}
        self.pools = {f"m{n}": [self.rng.uniform(800, 1200), self.rng.uniform(800, 1200)] for n in range(6)}
        self.fates: dict[str, bool | str | None] = {
            name: self.rng.choice([True, False, True, False, None, "open"]) for name in self.pools
        }
        self.bets: list[tuple[tuple[str, int], str, str, float]] = []
        self.prices = [100.0]
        while len(self.prices) < 140:
            self.prices.append(self.prices[-1] * (1 + self.rng.gauss(0, 0.006)))
        self.longs: dict[str, tuple[tuple[str, int], str, float, float]] = {}

    def put(self, table: str, row: dict[str, Any]) -> None:
        self.rows.setdefault(table, []).append(row)

    def play(self) -> None:
        self.put("Organization", organization("ACME"))
        for minute, price in enumerate(self.prices):
            self.put("StockPrice", stock_price(f"s{minute}", price, minute - 1))
        steps: dict[str, list[dict[str, Any]]] = {agent: [] for agent in AGENTS}
        for minute in range(1, 45):
            for place, agent in enumerate(self.rng.sample(AGENTS, 4)):
                if self.rng.random() < 0.6:
                    steps[agent].append(self.act(agent, len(steps[agent]), minute + place / 10))
        for agent, own in steps.items():
            self.put(
                "trajectories", trajectory(f"t-{agent}", own, agentId=agent, endTime=START + timedelta(minutes=46))
            )
        self.settle()

    def act(self, agent: str, number: int, minute: float) -> dict[str, Any]:
        place = (f"t-{agent}", number)
        kind = self.rng.choice(["bet", "bet", "bet", "perp", "perp", "hold", "post", "refused", "lost", "tiny"])
        live = self.rng.random() < 0.5
        if kind in ("bet", "tiny"):
            return self.bet(agent, place, minute, live, 0.25 if kind == "tiny" else self.rng.uniform(5, 80))
        if kind == "perp":
            return self.perp(agent, place, minute, live)
        if kind == "lost":
            self.truth[place] = (None, "unknown")
            return self.step(place, minute, "BUY_SHARES", {"marketId": "m0", "side": "YES"}, live)
        name, success, error = {
            "hold": ("TRADING_DECISION", False, None) if live else ("HOLD", True, None),
            "post": ("CREATE_POST", True, None),
            "refused": ("TRADING_DECISION", False, "insufficient balance"),
        }[kind]
        states = {"hold": (0.0, "no_trade"), "post": (None, "unknown"), "refused": (None, "invalid")}
        self.truth[place] = states[kind]
        return self.step(place, minute, name, {"method": "analysis", "pnlChange": 0}, live, success, error)

    def bet(self, agent: str, place: tuple[str, int], minute: float, live: bool, dollars: float) -> dict[str, Any]:
        name, side = self.rng.choice(list(self.pools)), self.rng.choice(["yes", "no"])
        pool, bought = self.pools[name], 0 if side == "yes" else 1
        product, other = pool[0] * pool[1], 1 - bought
        pool[other] += dollars
        shares, pool[bought] = pool[bought] - product / pool[other], product / pool[other]
        self.put("PredictionPriceHistory", quote(f"q-{place}", pool[1] / sum(pool), minute + 0.003, name))
        about = {
            "marketType": "prediction",
            "marketId": name,
            "side": side,
            "amount": dollars,
            "price": dollars / shares,
        }
        self.put("AgentTrade", trade(f"x-{place}", agentUserId=agent, executedAt=self.at(minute + 0.004), **about))
        self.bets.append((place, name, side, dollars / shares))
        if dollars < 1:
            self.truth[place] = (dollars, "stake")
        parameters = {"marketId": name, "side": side.upper(), "pnlChange": 3}
        return self.step(place, minute, "TRADING_DECISION" if live else "BUY_PREDICTION_SHARES", parameters, live)

    def perp(self, agent: str, place: tuple[str, int], minute: float, live: bool) -> dict[str, Any]:
        price = self.prices[int(minute) + 1]
        row = {"marketType": "perp", "marketId": None, "ticker": "ACME", "price": price, "amount": 50.0}
        if agent in self.longs:
            opened, side, _, entry = self.longs.pop(agent)
            worth = self.worth(side, entry, price)
            self.truth[opened] = self.truth[place] = (worth, "final")
            kind, shown = "close", "CLOSE_PERP_POSITION"
        else:
            side = self.rng.choice(["long", "short"])
            self.longs[agent] = (place, side, minute, price)
            kind, shown = "open", "OPEN_PERP_POSITION"
        self.put(
            "AgentTrade",
            trade(f"x-{place}", **row, agentUserId=agent, side=side, action=kind, executedAt=self.at(minute)),
        )
        name = "TRADING_DECISION" if live else shown
        return self.step(place, minute, name, {"ticker": "ACME", "side": side}, live)

    def worth(self, side: str, entry: float, price: float) -> float:
        return max(-1.0, min(1.0, (price / entry - 1) * (1 if side == "long" else -1) * 10))

    def settle(self) -> None:
        for opened, side, minute, entry in self.longs.values():
            # The first price an hour after the trade; prices come at whole minutes, one of them before the first.
            self.truth[opened] = (self.worth(side, entry, self.prices[ceil(minute) + 61]), "final")
        for name, fate in self.fates.items():
            times = {"updatedAt": START + timedelta(hours=5)}
            known = {} if fate == "open" else {"resolved": True, "resolution": fate, **times}
            self.put("Market", market(name, **known))
        for place, name, side, price in self.bets:
            fate, (stake, _) = self.fates[name], self.truth.get(place, (1.0, ""))
            if fate == "open":
                self.truth[place] = (None, "pending")
            elif fate is None:
                self.truth[place] = (None, "unknown")
            else:
                paid = float(fate is (side == "yes"))
                self.truth[place] = (max(-1.0, min(1.0, paid - price)) * (stake or 1.0), "final")

    def at(self, minute: float) -> Any:
        return START + timedelta(minutes=minute)

    def step(
        self,
        place: tuple[str, int],
        minute: float,
        kind: str,
        parameters: dict[str, Any],
        live: bool,
        success: bool = True,
        error: str | None = None,
    ) -> dict[str, Any]:
        at = int(self.at(minute).timestamp() * 1000)
        return {
            "stepNumber": place[1],
            "timestamp": at,
            "environmentState": {"agentBalance": 900, "agentPnL": 4.5, "openPositions": 1},
            "providerAccesses": [],
            "llmCalls": [] if live else [call(callId=f"{place}")],
            "reward": 0,
            "action": {"actionType": kind, "parameters": parameters, "success": success, "error": error},
        }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_worth_of_an_hour_is_right(game_conn: Connection, seed: int) -> None:
    game = Babylon(seed)
    game.play()
    add_users(game_conn, *AGENTS)
    add_trajectories(game_conn, *game.rows.pop("trajectories"))
    for table in ("Organization", "StockPrice", "Market", "PredictionPriceHistory", "AgentTrade"):
        copy_rows(game_conn, table, game.rows[table])
    environment = BabylonEnvironment(Settings())
    rows = [row for row in environment.read_window(game_conn, WINDOW) if isinstance(row, TrajectoryRecord)]
    steps = steps_frame(rows, environment.detail)
    valued = environment.value_steps(game_conn, WINDOW, steps)
    faults = []
    for name, step, worth, state in zip(
        steps["trajectory_id"], steps["step"], valued["worth"], valued["state"], strict=True
    ):
        true, true_state = game.truth[name, step]
        same = np.isnan(worth) if true is None else abs(worth - true) <= 1e-9
        if not same or state != true_state:
            faults.append(f"{name}/{step}: {worth} {state}, in truth {true} {true_state}")
    assert faults == []
    assert len(steps) == len(game.truth) > 60 and (valued["state"] == "final").sum() > 20
