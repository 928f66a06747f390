"""`babylon export`: the frozen dataset of a window as files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babylon_assets.cli.list_windows import opened
from babylon_assets.cli.terminal import output
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.errors import MissingDependency, PermanentError
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.windows import get_window

if TYPE_CHECKING:
    from babylon_assets.domain.datasets import Dataset
    from babylon_assets.environments.files.exports import Facts


def export(
    window: Annotated[str, typer.Argument(help="A window such as 2026-11-05T14:00.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the files; it is made when it is missing.")] = Path(),
    parquet: Annotated[bool, typer.Option(help="Write the table of all samples as well.")] = True,
) -> None:
    """Write a window's dataset as ART's JSONL of trajectory groups and as a Parquet table.

    The JSONL has the samples that are trained on. The table has every sample, with the reason where it is skipped.

    Example: [bold]babylon export 2026-11-05T14:00 --to exported[/]
    """
    from babylon_assets.environments.files.exports import art_lines

    settings = load_settings()
    settings.windows.parse(window)
    with opened(settings).connect() as conn:
        dataset, facts = _dataset(conn, window), _facts(conn, window)
    to.mkdir(parents=True, exist_ok=True)
    stem = window.replace(":", "")
    lines = to / f"{stem}.jsonl"
    with lines.open("wb") as file:
        file.writelines(art_lines(dataset, facts))
    output.print(f"{lines}: {dataset.counts['trainable_samples']} samples", highlight=False, soft_wrap=True)
    if parquet:
        table = to / f"{stem}.parquet"
        write_parquet(dataset, table, facts)
        output.print(f"{table}: {len(dataset.samples)} samples", highlight=False, soft_wrap=True)


def write_parquet(dataset: Dataset, path: Path, facts: Facts | None = None) -> None:
    """Write every sample as a row of a Parquet file.

    Raises:
        MissingDependency: polars is not installed.
    """
    try:
        import polars
    except ImportError as error:
        raise MissingDependency(
            "Parquet is written with polars; type: pip install polars, or use --no-parquet"
        ) from error
    from babylon_assets.environments.files.exports import table_rows

    integers, floats = polars.List(polars.Int64), polars.List(polars.Float64)
    types: dict[str, Any] = dict.fromkeys(("policy", "skip_reason", "facts", "tools", "reasoning"), polars.String)
    types |= {"policy_step": polars.Int64}
    types |= dict.fromkeys(("reward", "advantage"), polars.Float64)
    types |= {"prompt_token_ids": integers, "token_ids": integers, "logprobs": floats}
    polars.DataFrame(table_rows(dataset, facts or {}), schema_overrides=types, infer_schema_length=None).write_parquet(
        path
    )


def _dataset(conn: Connection, window: str) -> Dataset:
    from babylon_assets.ledger.datasets import load_dataset

    row = get_window(conn, window)
    if row is None or row.dataset_id is None:
        raise PermanentError(f"{window} has no dataset yet; type: babylon train {window}")
    return load_dataset(conn, row.dataset_id)


def _facts(conn: Connection, window: str) -> Facts:
    from babylon_assets.ledger.trajectories import read_heads

    return {(record.trajectory_id, fact.step): fact for record in read_heads(conn, window) for fact in record.facts}
