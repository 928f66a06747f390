"""Windows of the simulated market, played by an adapter and scored at once, in this process: no database and no gate.

Every outcome is known when a window ends, and no agent is held out, so that all groups have their eight answers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from babylon_assets.config.settings import Settings
from babylon_assets.domain import rewards
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.samples import Sample
from babylon_assets.environments.babylon.scorers import HeuristicScorer
from babylon_assets.environments.simulated.accounts import worth
from babylon_assets.environments.simulated.language import InvalidOrderError
from babylon_assets.environments.simulated.market import board_rng, draw_room
from babylon_assets.environments.simulated.play import Move, Reply, Turn, play
from babylon_assets.environments.simulated.players import reference_rewards
from babylon_assets.environments.simulated.styles import clock_of, style_of
from babylon_assets.report.learning_curve import CurvePoint
from babylon_assets.serving.engine.engine import Engine
from benchmarks.rivals.market_questions import seat_players

#: Of the random numbers of answers, beside those of the boards.
_ANSWERS = 2**19


@dataclass(frozen=True, slots=True)
class PlayedWindow:
    """The answers of groups whose rewards differ, a group per board, and what the window is on a learning curve."""

    groups: list[list[Sample]]
    point: CurvePoint


class MarketLine:
    """One game, from its first window on; a learner is given what it plays."""

    def __init__(self, settings: Settings, base: Path) -> None:
        self._settings, self._engine = settings, Engine(base, "base")
        self._players = seat_players(settings)

    def play(self, window: str, adapter: Path | None, step: int) -> PlayedWindow:
        """Play a window with a policy: the base model and an adapter, which is step `step` of its chain."""
        settings, clock = self._settings, clock_of(self._settings)
        self._engine.activate(adapter, policy_name(settings.model_name, step))
        rooms = [draw_room(settings.simulation.seed, window, room, clock) for room in range(clock.rooms)]
        for player in self._players:
            player.settle(clock.at(window, player.room, 0))
        moves = play(rooms, self._players, self._choose, style_of(settings).prompt)
        rewarded = self._rewards(moves)
        groups: dict[str, list[Sample]] = {}
        for move, reward in zip(moves, rewarded, strict=True):
            sample = self._sample(move, window, step, reward)
            groups.setdefault(sample.group, []).append(sample)
        compared = [group for group in groups.values() if len({sample.reward for sample in group}) > 1]
        references = reference_rewards(settings, rooms, window)
        return PlayedWindow(compared, CurvePoint(window, statistics.fmean(rewarded), references))

    def _choose(self, turns: Sequence[Turn]) -> list[Reply]:
        style = style_of(self._settings)
        seeds = [self._seed(turn) for turn in turns]
        completions = self._engine.complete([turn.messages for turn in turns], seeds, max_tokens=style.answer_tokens)
        replies = []
        for turn, completion in zip(turns, completions, strict=True):
            try:
                replies.append(Reply(style.parse(completion.text, turn.board), None, completion))
            except InvalidOrderError as error:
                replies.append(Reply(None, str(error), completion))
        return replies

    def _seed(self, turn: Turn) -> int:
        place = _ANSWERS + 64 * turn.board.tick + int(turn.player.agent_id) % 64
        rng = board_rng(self._settings.simulation.seed, turn.board.window, turn.board.room, place)
        return int(rng.integers(2**32))

    def _rewards(self, moves: Sequence[Move]) -> list[float]:
        chosen = self._settings.rewards
        steps = pd.DataFrame([_step(move, chosen.perp_full_scale_percent) for move in moves])
        added = {"heuristic": HeuristicScorer()}
        scored = rewards.score_steps(steps, chosen.weights, chosen.invalid_action_reward, added)
        return [float(reward) for reward in scored["reward"]]

    def _sample(self, move: Move, window: str, step: int, reward: float) -> Sample:
        turn, completion = move.turn, move.reply.completion
        assert completion is not None
        trajectory = f"{turn.player.agent_id}-{window}"
        return Sample(
            sample_id=f"{trajectory}/{turn.board.tick}/0",
            window=window,
            trajectory_id=trajectory,
            agent_id=turn.player.agent_id,
            step=turn.board.tick,
            call=0,
            group=f"{window}/{turn.board.room}-{turn.board.tick}",
            messages=turn.messages,
            response=completion.text,
            model=self._settings.model_name,
            policy=policy_name(self._settings.model_name, step),
            policy_step=step,
            prompt_token_ids=completion.prompt_token_ids,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            reward=reward,
            components={},
            advantage=None,
            trains_as="policy_gradient",
            skip_reason=None,
            tokens=len(completion.token_ids),
        )


def _step(move: Move, full_scale: float) -> dict[str, object]:
    """A move as the scorers want it, with its order's true worth."""
    turn, order = move.turn, move.reply.order
    return {
        "window": turn.board.window,
        "agent_id": turn.player.agent_id,
        "step": turn.board.tick,
        "timestamp_ms": int(turn.board.at.timestamp() * 1000),
        "pnl": turn.account.pnl,
        "worth": float("nan") if order is None else worth(order, turn.board, turn.truth, full_scale),
        "state": "invalid" if order is None else "no_trade" if move.bet is None else "final",
    }
