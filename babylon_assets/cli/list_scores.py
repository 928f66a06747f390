"""`babylon scores`: each step of a window with its action, its worth, its reward, and what became of its answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from babylon_assets.cli.list_windows import Json, opened
from babylon_assets.cli.terminal import fitting_table, number, output, plain, print_json
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.display_text import neutralize_line
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import windows
from babylon_assets.ledger.database import Connection

if TYPE_CHECKING:
    import pandas as pd

    from babylon_assets.domain.samples import SampleHead
    from babylon_assets.domain.trajectories import TrajectoryRecord

#: Columns of the scores that are no scorer's.
_FACTS = ("window", "trajectory_id", "agent_id", "step", "state", "worth", "reward", "final")

#: Why an answer is not imitated that is worth what an imitated one is.
_TIED = "tied, but half of its group is imitated already"


def list_scores(
    window: Annotated[str, typer.Argument(help="A window such as 2026-11-05T14:00.")], json: Json = False
) -> None:
    """Show what each step of a window was worth, and why: prices, reward and its parts, training mode, advantage.

    Entry and exit are the prices per share or unit that the environment computes the worth from.

    Example: [bold]babylon scores 2026-11-05T14:00 --json[/]
    """
    settings = load_settings()
    settings.windows.parse(window)
    database = opened(settings)
    with database.connect() as conn, database.source_of(conn) as source:
        rows = list(score_rows(settings, conn, window, source))
    if json:
        print_json(rows)
    else:
        output.print(_table(rows))


def score_rows(
    settings: Settings, conn: Connection, window: str, source: Connection | None = None
) -> Iterator[dict[str, Any]]:
    """A row per step, by trajectory and step; the keys are a promise.

    Args:
        source: the environment's database; None: it is that of `conn`.

    Raises:
        PermanentError: the window was not scored.
    """
    from babylon_assets.environments.registry import open_environment
    from babylon_assets.ledger import scores, trajectories

    kept = scores.read_scores(conn, window)
    if kept.empty:
        raise PermanentError(f"{window} has no scores; train it, if `babylon windows` lists it")
    environment = open_environment(settings)
    steps = trajectories.read_steps(conn, window, environment.detail)
    source = source or conn
    has_record = environment.has_record(source)
    valued = environment.value_steps(source, window, steps) if has_record else steps[[]]
    prices = _by_step(steps, valued)
    facts = trajectories.read_facts(conn, window, sorted(set(kept["trajectory_id"])))
    if has_record:
        environment.look_up_names(source, facts.values())
    records = trajectories.read_heads(conn, window)
    attributes = {record.trajectory_id: record.attributes for record in records}
    answers = _answers(conn, window, records)
    tied = _tied(answers)
    names = [name for name in kept.columns if name not in _FACTS]
    for row in kept.to_dict("records"):
        place = (row["trajectory_id"], row["step"])
        yield {
            "trajectory": place[0],
            "agent": row["agent_id"],
            "step": place[1],
            **_answer(answers.get(place)),
            "tied": place in tied,
            "action": environment.describe_action(facts[place]) if place in facts else None,
            "kind": prices.get(place, {}).get("kind"),
            "state": row["state"],
            **{name: _known(prices.get(place, {}).get(name)) for name in ("entry", "exit")},
            "worth": _known(row["worth"]),
            "reward": _known(row["reward"]),
            "parts": {name: _known(row[name]) for name in names},
            "attributes": attributes.get(place[0], {}),
            "judge": _name(prices.get(place, {}).get("judge")),
        }


def _by_step(steps: pd.DataFrame, valued: pd.DataFrame) -> dict[tuple[str, int], dict[str, Any]]:
    """What the environment says of each step besides its worth."""
    places = zip(steps["trajectory_id"], steps["step"], strict=True)
    columns = [name for name in ("kind", "entry", "exit", "judge") if name in valued]
    rows = zip(*(valued[name].tolist() for name in columns), strict=True)
    return (
        {place: dict(zip(columns, row, strict=True)) for place, row in zip(places, rows, strict=True)}
        if columns
        else {}
    )


def _answers(conn: Connection, window: str, records: list[TrajectoryRecord]) -> dict[tuple[str, int], SampleHead]:
    """The answer of each step that was carried out, of the window's newest dataset: the last that was not refused."""
    from babylon_assets.ledger import datasets

    row = windows.get_window(conn, window)
    if row is None or row.dataset_id is None:
        return {}
    refused = {
        (record.trajectory_id, head.step, head.call)
        for record in records
        for head in getattr(record.samples, "heads", record.samples)
        if head.refused
    }
    answers: dict[tuple[str, int], SampleHead] = {}
    for head in sorted(datasets.load_heads(conn, row.dataset_id), key=lambda head: head.call):
        if head.window == window and (head.trajectory_id, head.step, head.call) not in refused:
            answers[head.trajectory_id, head.step] = head
    return answers


def _tied(answers: Mapping[tuple[str, int], SampleHead]) -> set[tuple[str, int]]:
    """The answers that are not imitated, while another one of the same group and reward is.

    At most half of a group is imitated; of equal rewards the earlier trajectory, step and call comes first.
    """
    from babylon_assets.domain.baselines import WORSE_HALF

    imitated = {(head.group, head.reward) for head in answers.values() if head.trains_as == "sft"}
    return {
        place
        for place, head in answers.items()
        if head.skip_reason == WORSE_HALF and (head.group, head.reward) in imitated
    }


def _answer(head: SampleHead | None) -> dict[str, Any]:
    """How an answer is trained, or why not, and what its reward was compared with."""
    if head is None:
        return dict.fromkeys(("call", "trains_as", "skip_reason", "credited", "compared_with", "baseline", "advantage"))
    from babylon_assets.domain.grouping import BASELINES, level_of

    comparable = head.reward is not None and head.advantage is not None
    return {
        "call": head.call,
        "trains_as": head.trains_as,
        "skip_reason": head.skip_reason,
        "credited": head.reward,
        "compared_with": BASELINES[level_of(head.group)] if comparable else None,
        "baseline": (head.reward or 0.0) - (head.advantage or 0.0) if comparable else None,
        "advantage": head.advantage,
    }


def _known(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _table(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> Table:
    """The steps for a person, without what this environment says of none of them."""
    unsaid = {name for name in ("kind", "entry", "exit") if all(row[name] is None for row in rows)}
    numbers = ("entry", "exit", "worth", "reward", "baseline", "advantage")
    listed = [
        {
            **{name: _text(row[name]) for name in ("trajectory", "agent", "step", "call", "kind", "state")},
            **{name: number(row[name]) for name in numbers},
            "compared with": _text(row["compared_with"]),
            "trained as": _TIED if row.get("tied") else _text(row["skip_reason"] or row["trains_as"] or "no call"),
            "action": _text(row["action"]),
        }
        for row in rows
    ]
    listed = [{name: cell for name, cell in row.items() if name not in unsaid} for row in listed]
    dropped = ("kind", "baseline", "compared with", "entry", "exit", "call", "trajectory", "worth", "advantage")
    return fitting_table(listed, drop=dropped, right=("step", "call", *numbers), ids=("trajectory", "agent"))


def _text(value: Any) -> str:
    return plain(value) if value is None else neutralize_line(str(value))
