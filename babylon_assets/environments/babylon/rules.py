"""What differs between the games that leave this record: Babylon of 2025, and Feed, which it became in 2026."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GameRules:
    """How one game writes its steps, and its own arithmetic.

    Attributes:
        failure_may_hold: an action without success and without an error is a deliberate hold; else it was refused.
        unnamed_calls_act: a call without a purpose was to choose the action, too.
        trades_follow_steps: a step's trade lies between the step and the next one of its trajectory; else it is the
            nearest in time, up to `MATCH_WITHIN_MS` away.
        winners_share: a right bet gets its stake back and a share of the losers' stakes; else each share of it pays 1.
        positions_net: an order on the other side of an open perpetual position reduces it before it opens anything.
        open_price_is_fill: the price of a trade that opens a perpetual is that at which it was filled.
        notes_are_outcomes: `market_outcomes` says what came of a market and by how much a ticker moved in the window.
        knows_rollbacks: `rolled_back` is a status of its `trained_models`.
    """

    failure_may_hold: bool
    unnamed_calls_act: bool
    trades_follow_steps: bool
    winners_share: bool
    positions_net: bool
    open_price_is_fill: bool
    notes_are_outcomes: bool
    knows_rollbacks: bool


BABYLON = GameRules(
    failure_may_hold=True,
    unnamed_calls_act=False,
    trades_follow_steps=False,
    winners_share=False,
    positions_net=False,
    open_price_is_fill=True,
    notes_are_outcomes=True,
    knows_rollbacks=False,
)
