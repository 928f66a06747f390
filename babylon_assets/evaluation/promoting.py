"""What a person decides: promoting a checkpoint whatever the gate said, and going back to an earlier one."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.lineage import ancestors
from babylon_assets.ledger.promotions import Promotion


def promote_by_hand(conn: Connection[Any], settings: Settings, checkpoint: Checkpoint, by: str, why: str) -> Promotion:
    """Make a checkpoint the served one, one that the gate refused as well.

    Raises:
        PermanentError: it is served already, is another chain's, or its weights are gone.
    """
    _refuse_impossible(conn, settings, checkpoint)
    return promotions.promote(conn, checkpoint, by=by, why=why)


def roll_back(
    conn: Connection[Any], settings: Settings, to: Checkpoint | None, by: str, why: str
) -> tuple[Promotion, Checkpoint]:
    """Go back to a checkpoint; without one, to the one before the served one on its line that was served before.

    Raises:
        PermanentError: nothing is served, there is nothing to go back to, or that cannot be served.
    """
    target = to or _before(conn, settings.model_name)
    _refuse_impossible(conn, settings, target)
    return promotions.promote(conn, target, by=by, why=why, kind="rollback"), target


def _before(conn: Connection[Any], chain: str) -> Checkpoint:
    """The nearest ancestor of the served checkpoint that was served itself; the root, when none was."""
    served = promotions.promoted(conn, chain)
    if served is None or served.step == 0:
        raise PermanentError(f"no checkpoint of {chain} was promoted; promote a checkpoint first")
    were = {row.to_id for row in promotions.history(conn, chain)}
    line = ancestors(conn, served)
    return next((checkpoint for checkpoint in line if checkpoint.id in were), line[-1])


def _refuse_impossible(conn: Connection[Any], settings: Settings, checkpoint: Checkpoint) -> None:
    name, served = policy_name(checkpoint.chain, checkpoint.step), promotions.promoted(conn, settings.model_name)
    if checkpoint.chain != settings.model_name:
        raise PermanentError(
            f"{name} is not of the chain {settings.model_name}, which is the one that is served and trained; "
            f"set BABYLON_MODEL={checkpoint.chain} to serve that one, or choose one that `babylon chains` lists in it"
        )
    if served is not None and served.id == checkpoint.id:
        raise PermanentError(f"{name} is served already; choose another one")
    if checkpoint.step and not checkpoint.path:
        raise PermanentError(f"the weights of {name} were pruned, so that it cannot be served; choose another one")
