"""Answers to the simulated market's recorded prompts: orders on a board, valued by the record as the game's are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from babylon_assets.config.simulation import SimulationSettings
from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.environments.babylon.answer_reader import GameAnswers, read_json
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.simulated.accounts import NOTIONAL, STAKE
from babylon_assets.environments.simulated.market import SLOTS, WIDE_SLOTS, market_id, room_tickers
from babylon_assets.environments.simulated.questions import question
from babylon_assets.environments.simulated.styles import clock_of, style_of


class BoardAnswers(GameAnswers):
    """Reads an order as the market does, and names what it is about as the game's tables do.

    Where the game's clock or style is not the usual one, its version says so: answers that were read by the usual ones
    are measured again.
    """

    def __init__(self, environment: BabylonEnvironment) -> None:
        super().__init__(environment)
        game, usual = environment.settings.simulation, SimulationSettings()
        same = (game.ticks, game.style) == (usual.ticks, usual.style)
        self.version = "board-1" if same else f"board-1 with {game.ticks} ticks, {game.style}"

    def parse(self, text: str, messages: Sequence[Message], step: StepFacts) -> StepFacts:
        """The action of an answer; one that cannot be carried out on the step's board is invalid."""
        return super().parse(json.dumps(self._order(text, step)), messages, step)

    def _order(self, text: str, step: StepFacts) -> dict[str, Any]:
        """The order in the game's own words; empty where it is none."""
        if style_of(self._environment.settings).is_wide:
            return self._wide_order(text, step)
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        verb, target = (fields.get("action"), fields.get("target")) if isinstance(fields, dict) else (None, None)
        room = self._room(step.timestamp_ms)
        if verb == "hold":
            return {"action": "HOLD"}
        if verb in ("buy_yes", "buy_no") and target in SLOTS:
            market = market_id(step.timestamp_ms, room, SLOTS.index(target))
            about: dict[str, Any] = {"marketType": "prediction", "marketId": market}
            about |= {"side": verb.removeprefix("buy_"), "amount": STAKE}
            return {"action": "BUY_PREDICTION_SHARES", "parameters": about}
        if verb in ("open_long", "open_short") and target in room_tickers(room):
            side = verb.removeprefix("open_")
            about = {"marketType": "perp", "ticker": target, "side": side, "amount": NOTIONAL}
            return {"action": "OPEN_PERP_POSITION", "parameters": about}
        return {}

    def _wide_order(self, text: str, step: StepFacts) -> dict[str, Any]:
        """An answer in the game's own form, with the id of the market that its question means."""
        fields, room = dict(read_json(text, whole=True)), self._room(step.timestamp_ms)
        trade = fields.get("trade")
        if isinstance(trade, dict):
            ids = [market_id(step.timestamp_ms, room, index) for index in range(len(WIDE_SLOTS))]
            named = {question(number).lower(): number for number in ids}
            named |= {ticker.lower(): ticker for ticker in room_tickers(room, True)}
            market = named.get(str(trade.get("market")).strip().lower())
            return {**fields, "trade": {**trade, "market": market}} if market else {}
        return fields

    def _price(self, likely: float) -> float:
        """A share costs what its side is quoted at."""
        return likely

    def _horizon_ms(self) -> float:
        """The next price after a board's own is the one at which its positions are closed."""
        return 1.0

    def _room(self, timestamp_ms: int) -> int:
        """The room of a board, by its time: the rooms take turns."""
        return clock_of(self._environment.settings).room_at(datetime.fromtimestamp(timestamp_ms / 1000, UTC))
