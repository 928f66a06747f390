"""The two policies that a page compares unless a person names others: such as were measured."""

from __future__ import annotations

from collections.abc import Sequence

from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoint_register import RegisteredCheckpoint, newest_of_chain
from babylon_assets.ledger.database import Connection


def suggest_pair(conn: Connection, chain: str) -> list[str]:
    """The parent of the served policy and the served one; else the two newest of the chain, measured ones first."""
    served = promotions.promoted(conn, chain)
    parent = checkpoints.get(conn, served.parent_id) if served and served.parent_id else None
    if served is None or parent is None:
        return newest_of_chain(conn, chain, 2)[::-1]
    return [policy_name(row.chain, row.step) for row in (parent, served)]


def suggest_rows(rows: Sequence[RegisteredCheckpoint], pair: Sequence[str]) -> list[str]:
    """The pair, where a page of the register has both; else the two newest of the page, measured ones first."""
    if len(pair) == 2 and set(pair) <= {row.policy for row in rows}:
        return list(pair)
    return [row.policy for row in sorted(rows, key=lambda row: row.value is None)[:2]][::-1]
