"""The rows of a bench: printed as a table, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `goal` and `holds` are None where it is only reported."""

    name: str
    value: float
    unit: str
    goal: str | None = None
    holds: bool | None = None


def at_least(name: str, value: float, unit: str, goal: float) -> Row:
    """A figure that should not be below its goal."""
    return Row(name, value, unit, f">= {goal:g}", value >= goal)


def at_most(name: str, value: float, unit: str, goal: float) -> Row:
    """A figure that should not be above its goal."""
    return Row(name, value, unit, f"<= {goal:g}", value <= goal)


def publish(bench: str, rows: Sequence[Row], home: Path) -> Path:
    """Print the rows and write them to `<home>/bench/<bench>.json`; returns that path."""
    table = Table(title=f"bench {bench}")
    for heading in ("figure", "value", "unit", "goal", "holds"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for row in rows:
        verdict = "" if row.holds is None else ("yes" if row.holds else "NO")
        table.add_row(row.name, f"{row.value:.3f}", row.unit, row.goal or "", verdict)
    console = Console()
    console.print(table)
    path = home / "bench" / f"{bench}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    console.print(f"written to {path}", highlight=False)
    return path
