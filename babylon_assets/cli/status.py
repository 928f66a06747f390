"""`babylon status`: where a window's checkpoint comes from, and the state of the whole chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from babylon_assets.cli.list_windows import Json, opened, plain_names, policy_names, window_json
from babylon_assets.cli.terminal import as_set, bold, is_empty, output, print_fact, print_json
from babylon_assets.config.settings import Settings, load_settings
from babylon_assets.domain.checkpoint_states import explain_end
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.domain.token_counts import explain_early_end, format_trainable
from babylon_assets.domain.verdict_table import explain_decision, verdict_rows
from babylon_assets.ledger import checkpoints, training_jobs, verdicts
from babylon_assets.ledger import windows as ledger
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.dataset_counts import read_counts
from babylon_assets.ledger.trajectory_counts import count_quarantined

#: Reasons why rows were not read that a person is told.
MOST_REASONS = 10
#: Names for a person of what the keys of JSON call otherwise.
_NAMES = {
    "parent_id": "parent",
    "dataset_id": "trained on dataset",
    "weights_sha256": "weights",
    "dagster_run_id": "run",
}


def status(
    window: Annotated[str | None, typer.Argument(help="A window such as 2026-11-05T14:00.")] = None,
    json: Json = False,
) -> None:
    """Show where a window's checkpoint comes from; without a window, the state of the whole chain.

    Example: [bold]babylon status 2026-11-05T14:00[/]
    """
    settings = load_settings()
    if window is not None:
        settings.windows.parse(window)
    with opened(settings).connect() as conn:
        shown = lineage(conn, settings, window) if window else overview(conn, settings.model_name)
        names = policy_names(conn, settings.model_name)
        dataset = read_counts(conn, shown.get("dataset"))
    if json:
        print_json(shown)
        return
    if dataset is not None:
        shown["trainable_tokens"] = format_trainable(shown["trainable_tokens"], dataset.counts)
        if (shown["lineage"] or {}).get("dataset_id") not in (None, shown["dataset"]):
            shown["trainable_tokens"] += " in the newest dataset"
    verdict = shown.pop("verdict", None)
    _print_nested(_with_names(_without_repeats(shown), names))
    if verdict is not None:
        _print_verdict(verdict)


def _without_repeats(shown: Mapping[str, Any]) -> dict[str, Any]:
    """A window for a person: what its checkpoint has in common with it is left out of the second part.

    The dataset that the checkpoint was trained on stands there where the window has a newer one.
    """
    top = {name: value for name, value in shown.items() if name not in ("policy", "parent_policy")}
    if top.get("understood") is not None:
        top["understood"] = f"{top['understood']:.0%}"
    if len(top.get("not_read", ())) > MOST_REASONS:
        named = list(top["not_read"].items())
        rest = sum(rows for _, rows in named[MOST_REASONS:])
        top["not_read"] = {**dict(named[:MOST_REASONS]), "other reasons; --json has all": rest}
    checkpoint = shown.get("lineage")
    if not checkpoint:
        return top
    shown_above = {value for value in shown.values() if isinstance(value, str)}
    top["lineage"] = {
        _NAMES.get(name, name): value
        for name, value in checkpoint.items()
        if not (isinstance(value, str) and value in shown_above)
    }
    if checkpoint.get("settings"):
        top["lineage"]["settings"] = as_set(checkpoint["settings"])
    if checkpoint["dataset_id"] != shown["dataset"]:
        top = {"newest dataset" if name == "dataset" else name: value for name, value in top.items()}
    return top


def _with_names(shown: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same for a person: a checkpoint's name before its id, and its end in the words of the states."""
    row: dict[str, Any] = {}
    for name, value in shown.items():
        if isinstance(value, Mapping):
            row[name] = _with_names(value, names)
        elif name in ("id", "parent", "parent_id", "checkpoint") and value in names:
            row[name] = f"{names[value]}  {value}"
        elif name == "rejected" and value:
            row["state"] = explain_end(value)
        else:
            row[name] = value
    return row


def lineage(conn: Connection, settings: Settings, window: str) -> dict[str, Any]:
    """Where the window's checkpoint comes from: dataset, parent, settings, seed, versions, Dagster run.

    Raises:
        PermanentError: the window is unknown.
    """
    settings.windows.parse(window)
    chain = settings.model_name
    row = ledger.get_window(conn, window)
    if row is None:
        raise PermanentError(
            f"{window} was never read; `babylon windows` lists what there is, and `babylon train` reads one of them"
        )
    checkpoint = checkpoints.by_window(conn, chain, window)
    return {
        **window_json(row, plain_names(conn, chain)),
        "reason": row.reason,
        "fingerprint": row.fingerprint,
        "not_read": count_quarantined(conn, window),
        "lineage": None
        if checkpoint is None
        else {
            "policy": policy_name(chain, checkpoint.step),
            "ended_early": explain_early_end(checkpoint.metrics) or None,
            **asdict(checkpoint),
        },
        "verdict": None if checkpoint is None else _verdict(conn, checkpoint.id),
    }


def _verdict(conn: Connection, checkpoint: str) -> dict[str, Any] | None:
    """What the gate said of a checkpoint, with a row for each rule."""
    kept = verdicts.verdict_on(conn, checkpoint)
    if kept is None:
        return None
    return {
        "passed": kept.passed,
        "summary": explain_decision(kept.why, kept.verdict),
        "why": kept.why,
        "at": kept.judged_at,
        "rules": [row._asdict() | {"answer": row.answer} for row in verdict_rows(kept.verdict)],
    }


def overview(conn: Connection, chain: str) -> dict[str, Any]:
    """How many windows are in which state, the newest checkpoint of the chain, and what is being trained."""
    rows = ledger.list_windows(conn)
    states = sorted({row.status for row in rows})
    head = checkpoints.head(conn, chain)
    running = training_jobs.running_jobs(conn, chain)
    return {
        "chain": chain,
        "windows": {state: sum(row.status == state for row in rows) for state in states},
        "newest window": rows[-1].window_id if rows else None,
        "head": None
        if head is None
        else {"step": head.step, "id": head.id, "window": head.window_id, "path": head.path},
        "training": {f"{job.window_id} on {job.chain}": _alive(job, ago) for job, ago in running},
    }


def _alive(job: training_jobs.Job, ago: float) -> str:
    """What an attempt that has not ended does, by its last sign of life."""
    if job.state != "submitted" and ago > training_jobs.SILENT_SECONDS:
        return f"{job.state}, no sign of life for {ago:.0f} s: its process has died; train the window again"
    return f"{job.state} with {job.backend or 'no backend yet'}, last sign of life {ago:.0f} s ago"


def _print_verdict(verdict: Mapping[str, Any]) -> None:
    """The sentence, and below it each rule of the gate."""
    print_fact("gate", f"{'passed' if verdict['passed'] else 'rejected'}: {verdict['summary']}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("rule", "holds", "what it came to", "bound"):
        table.add_column(name, overflow="fold")
    for row in verdict["rules"]:
        table.add_row(row["rule"].replace("_", " "), row["answer"], row["finding"], row["bound"])
    output.print(table)


def _print_nested(values: dict[str, Any], indent: int = 0) -> None:
    """Aligned `name  value` lines without those that are empty; nested mappings are indented."""
    values = {name: value for name, value in values.items() if not is_empty(value)}
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        if isinstance(value, dict) and value:
            output.print(bold(" " * indent + name))
            _print_nested(value, indent + 2)
        else:
            print_fact(name, value, indent=indent, width=width)
