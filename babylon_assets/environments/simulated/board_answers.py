"""Answers to the simulated market's recorded prompts: orders on a board, valued by the record as the game's are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.environments.babylon.answer_reader import GameAnswers
from babylon_assets.environments.simulated.accounts import NOTIONAL, STAKE
from babylon_assets.environments.simulated.market import SLOTS, Clock, market_id, room_tickers


class BoardAnswers(GameAnswers):
    """Reads an order as the market does, and names what it is about as the game's tables do."""

    version = "board-1"

    def parse(self, text: str, messages: Sequence[Message], step: StepFacts) -> StepFacts:
        """The action of an answer; one that cannot be carried out on the step's board is invalid."""
        return super().parse(json.dumps(self._order(text, step)), messages, step)

    def _order(self, text: str, step: StepFacts) -> dict[str, Any]:
        """The order in the game's own words; empty where it is none."""
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

    def _price(self, likely: float) -> float:
        """A share costs what its side is quoted at."""
        return likely

    def _horizon_ms(self) -> float:
        """The next price after a board's own is the one at which its positions are closed."""
        return 1.0

    def _room(self, timestamp_ms: int) -> int:
        """The room of a board, by its time: the rooms take turns."""
        settings = self._environment.settings
        clock = Clock(settings.simulation.rooms, settings.simulation.ticks, settings.windows)
        return clock.room_at(datetime.fromtimestamp(timestamp_ms / 1000, UTC))
