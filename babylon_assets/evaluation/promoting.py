"""What a person decides: promoting a checkpoint whatever the gate said, and going back to an earlier one."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.promotions import Kind, Promotion


def promote_by_hand(
    conn: Connection[Any], settings: Settings, checkpoint: Checkpoint, by: str, why: str
) -> tuple[Promotion, int]:
    """Make a checkpoint the served one, one that the gate refused as well; and how many that sets aside.

    Raises:
        PermanentError: it is served already, is another chain's, or its weights are gone.
    """
    return _put_in_place(conn, settings, checkpoint, by, why, "promotion")


def roll_back(conn: Connection[Any], settings: Settings, to: Checkpoint, by: str, why: str) -> tuple[Promotion, int]:
    """Go back to a checkpoint; and how many that sets aside. Errors as of `promote_by_hand`."""
    return _put_in_place(conn, settings, to, by, why, "rollback")


def served_before(conn: Connection[Any], chain: str) -> Checkpoint:
    """What a rollback goes back to: what was served before the newest promotion that no rollback has undone.

    Before the first promotion that is the root.

    Raises:
        PermanentError: nothing was promoted, or all of it was undone.
    """
    known = {checkpoint.id: checkpoint for checkpoint in checkpoints.chain(conn, chain)}
    standing = list(known)[:1]  # the root
    for row in promotions.history(conn, chain):
        if row.kind == "rollback" and row.to_id in standing:
            while standing[-1] != row.to_id:
                standing.pop()
            continue
        if row.kind == "rollback":  # to one that was never served: what came after it does not stand either
            standing = [name for name in standing if known[name].step < known[row.to_id].step]
        standing.append(row.to_id)
    if len(standing) < 2:
        raise PermanentError(f"no checkpoint of {chain} was promoted; promote a checkpoint first")
    return known[standing[-2]]


def _put_in_place(
    conn: Connection[Any], settings: Settings, checkpoint: Checkpoint, by: str, why: str, kind: Kind
) -> tuple[Promotion, int]:
    _refuse_impossible(conn, settings, checkpoint)
    with conn.transaction():
        checkpoints.lock_line(conn, checkpoint.chain)
        line = _line(conn, checkpoint.chain)
        promotion = promotions.promote(conn, checkpoint, by=by, why=why, kind=kind)
        return promotion, len(line - _line(conn, checkpoint.chain))


def _line(conn: Connection[Any], chain: str) -> set[str]:
    """The ids of a chain's checkpoints that are not set aside."""
    return {checkpoint.id for checkpoint in checkpoints.chain(conn, chain) if checkpoint.rejected is None}


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
