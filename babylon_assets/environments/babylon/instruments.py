"""What agents call markets and companies, and what the game's tables call them: by id, by question, by name.

A long id may be off in its last digits, because a program between them took it for a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psycopg

from babylon_assets.domain.display_text import neutralize_line
from babylon_assets.environments.babylon.schema import Schema
from babylon_assets.environments.babylon.statements import companies

#: How far an id may be off; the game looks so far as well.
NEAR = 100
_BY_ID = 'SELECT id, id FROM public."Market" WHERE id = ANY(%(names)s)'
_BY_QUESTION = """
    SELECT name, min(m.id) FROM unnest(%(names)s::text[]) AS name
    JOIN public."Market" m ON lower(m.question) = lower(name) GROUP BY name HAVING count(*) = 1"""
_QUESTIONS = "SELECT id, question FROM public.\"Market\" WHERE id = ANY(%s) AND question <> ''"
#: Characters of a question that name a market in a few words.
LONGEST_QUESTION = 48
_NEAR = """
    SELECT name, min(m.id) FROM unnest(%(names)s::text[]) AS name
    JOIN public."Market" m ON m.id ~ '^[0-9]{15,20}$' AND abs(m.id::numeric - name::numeric) <= %(near)s
    GROUP BY name HAVING count(*) = 1"""


@dataclass(frozen=True, slots=True)
class Instruments:
    """The ids of the markets and the tickers of the companies that some orders name, by the name that they use."""

    markets: Mapping[str, str]
    tickers: Mapping[str, str]

    @classmethod
    def read(cls, conn: psycopg.Connection[Any], steps: pd.DataFrame, schema: Schema) -> Instruments:
        """Look up what a frame of steps names in `market_id` and `ticker`."""
        return cls(
            _markets(conn, _distinct(steps["market_id"]), schema), _tickers(conn, _distinct(steps["ticker"]), schema)
        )

    def market(self, name: Any) -> str | None:
        return self.markets.get(name) if isinstance(name, str) else None

    def ticker(self, name: Any) -> str | None:
        return self.tickers.get(name) if isinstance(name, str) else None


def read_questions(conn: psycopg.Connection[Any], names: Iterable[str], schema: Schema) -> dict[str, str]:
    """The questions of prediction markets in quotes, by the names that steps have of them; `schema` has questions."""
    markets = _markets(conn, _distinct(names), schema)
    questions = dict(conn.execute(_QUESTIONS, [_distinct(markets.values())]).fetchall())
    return {name: f'"{cut(questions[market])}"' for name, market in markets.items() if market in questions}


def cut(question: str) -> str:
    """A question on one line, as much of it as names a market."""
    text = neutralize_line(question)
    return text if len(text) <= LONGEST_QUESTION else f"{text[: LONGEST_QUESTION - 1].rstrip()}…"


def _markets(conn: psycopg.Connection[Any], names: list[str], schema: Schema) -> dict[str, str]:
    """The ids of markets by the names that are used of them."""
    markets = dict(conn.execute(_BY_ID, {"names": names}).fetchall())
    if schema.columns.get("Market", {}).get("question", False):
        unknown = [name for name in names if name not in markets]
        markets |= dict(conn.execute(_BY_QUESTION, {"names": unknown}).fetchall())
    numbers = [name for name in names if name not in markets and name.isdecimal() and 15 <= len(name) <= 20]
    if numbers:
        markets |= dict(conn.execute(_NEAR, {"names": numbers, "near": NEAR}).fetchall())
    return markets


def _tickers(conn: psycopg.Connection[Any], names: list[str], schema: Schema) -> dict[str, str]:
    """The names that a company with a price is known by."""
    query = companies("SELECT unnest(%(tickers)s::text[]) AS ticker", schema)
    priced = f"""
        SELECT DISTINCT named.ticker FROM ({query}) AS named
        JOIN public."StockPrice" s ON s."organizationId" = named.organization"""
    rows = conn.execute(priced.encode(), {"tickers": names})
    return {name: name for (name,) in rows}


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({value for value in values if isinstance(value, str)})
