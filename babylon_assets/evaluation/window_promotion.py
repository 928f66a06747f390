"""Promoting a window: what the gate decides of its checkpoint, a rollback if one is due, and what the game is told."""

from __future__ import annotations

from dataclasses import dataclass

from babylon_assets.config.settings import Settings
from babylon_assets.evaluation.deployment import tell_game
from babylon_assets.evaluation.gate_runner import GateDecision, decide
from babylon_assets.evaluation.served_results import roll_back_if_needed
from babylon_assets.ledger import checkpoints, verdicts
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.promotions import Promotion
from babylon_assets.training.model_cards import write_card


@dataclass(frozen=True, slots=True)
class PromotionOutcome:
    """What became of a window: the verdict, the rollback if there was one, and what was served once it was done."""

    judged: GateDecision | None
    rolled_back: Promotion | None
    served: Checkpoint | None
    inference_name: str | None


def promote_window(settings: Settings, database: Database, window: str, run_id: str | None) -> PromotionOutcome:
    """Apply the gate to a window's checkpoint, go back if the served one left its band, and tell the game."""
    rolled_back = roll_back_if_needed(settings, database, run_id)
    with database.connect() as conn:
        checkpoint = checkpoints.by_window(conn, settings.model_name, window)
    judged = decide(settings, database, checkpoint, run_id) if checkpoint is not None else None
    named = tell_game(settings, database)
    with database.connect() as conn:
        if checkpoint is not None:
            write_card(conn, checkpoint)
        served = verdicts.served_after(conn, settings.model_name, window)
    return PromotionOutcome(judged, rolled_back, served, named)
