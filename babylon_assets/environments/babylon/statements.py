"""Parts of the statements that read the game's record, by which of its tables and columns are there."""

from __future__ import annotations

from babylon_assets.environments.babylon.schema import Schema

#: Attributes of a trajectory by the columns that hold them.
_ATTRIBUTES = {
    "trajectories": {"archetype": "archetype", "npcRole": "npc_role", "arcPhase": "arc_phase", "packId": "pack"},
    "UserAgentConfig": {
        **{"team": "team", "alignment": "alignment", "modelTier": "model_tier"},
        **{"planningHorizon": "planning_horizon", "riskTolerance": "risk_tolerance"},
    },
}


def attribute_columns(schema: Schema) -> str:
    """A JSON object of the attributes that the columns which are there have; null where that is none."""
    aliases = {"trajectories": "t", "UserAgentConfig": "c"}
    pairs = [
        f"'{name}', {aliases[table]}.\"{column}\""
        for table, columns in _ATTRIBUTES.items()
        for column, name in columns.items()
        if schema.has(table, column)
    ]
    pairs.append("""'npc', CASE WHEN u.id IS NULL THEN 'true' END""")
    return f"nullif(json_strip_nulls(json_build_object({', '.join(pairs)}))::text, '{{}}')"


def companies(asked: str, schema: Schema) -> str:
    """A query of `ticker` and `organization` for the tickers that another query asks for, by all that names them."""
    names = ["SELECT asked.ticker, asked.ticker AS organization FROM asked"]
    if schema.has("Organization"):
        ticker = " OR o.ticker = asked.ticker" if schema.has("Organization", "ticker") else ""
        names.append(
            'SELECT asked.ticker, o.id FROM asked JOIN public."Organization" o '
            f"ON o.id = asked.ticker OR o.name = asked.ticker{ticker}"
        )
    names += [
        f'SELECT asked.ticker, p."organizationId" FROM asked JOIN public."{table}" p ON p.ticker = asked.ticker'
        for table in ("PerpMarketSnapshot", "PerpPosition")
        if schema.has(table)
    ]
    return f"WITH asked AS ({asked}) SELECT DISTINCT * FROM ({' UNION ALL '.join(names)}) AS named"


#: A market that trades is written at each trade; what is read of it changes when it is resolved.
RESOLVED_AT = """(CASE WHEN resolved THEN "updatedAt" END)"""
_NOTES = """SELECT 5, id, concat_ws('|', "changePercent", outcome) FROM public.market_outcomes
        WHERE "windowId" = ANY(%(outcome_windows)s)"""
_SETTLED_POSITIONS = """SELECT 8, id, concat_ws('|', shares, "avgPrice", pnl, extract(epoch FROM "resolvedAt"))
        FROM public."Position" WHERE "resolvedAt" IS NOT NULL AND "marketId" IN (SELECT id FROM markets)"""
_PERP_POSITIONS = """SELECT 9, id, concat_ws('|', side, "entryPrice", extract(epoch FROM "closedAt"))
        FROM public."PerpPosition" WHERE "userId" IN (SELECT agent FROM kept)
          AND "openedAt" < %(until)s AND ("closedAt" IS NULL OR "closedAt" >= %(before)s)"""
_OTHER_TRADES = """SELECT 10, id, concat_ws('|', action, side, amount, price, pnl) FROM public."AgentTrade"
        WHERE "agentUserId" IN (SELECT agent FROM kept) AND "marketType" = 'prediction'
          AND "marketId" IN (SELECT id FROM markets)"""
_NPC_TRADES = """SELECT 11, id, concat_ws('|', action, side, amount, price) FROM public."NPCTrade"
        WHERE "npcActorId" IN (SELECT agent FROM kept) AND "executedAt" >= %(before)s AND "executedAt" < %(until)s"""


JUDGMENTS = """SELECT 12, id, concat_ws('|', "judgeModel", "judgeVersion", "overallScore")
        FROM public.reward_judgments WHERE "trajectoryId" IN (SELECT id FROM kept) AND NOT starts_with(id, 'ruler-')"""


def more_lines(schema: Schema) -> list[str]:
    """What else a fingerprint covers, by what the game's outcomes are made of."""
    rules, lines = schema.game.rules, []
    if rules.notes_are_outcomes:
        lines.append(_NOTES)
    if rules.winners_share:
        lines.append(_OTHER_TRADES)
        lines += [_SETTLED_POSITIONS] if schema.has("Position") else []
    if rules.positions_net and schema.has("PerpPosition"):
        lines.append(_PERP_POSITIONS)
    return [*lines, _NPC_TRADES] if schema.has("NPCTrade") else lines
