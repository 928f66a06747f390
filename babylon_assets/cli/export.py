"""`babylon export`: the frozen dataset of a window as files that other tools read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babylon_assets.cli import stopping
from babylon_assets.cli.list_windows import opened
from babylon_assets.cli.terminal import output
from babylon_assets.config.settings import load_settings
from babylon_assets.domain.display_text import format_plural
from babylon_assets.domain.errors import MissingDependency, PermanentError
from babylon_assets.domain.hindsight import Place
from babylon_assets.domain.trajectories import StepFacts, StoredSamples
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

    The JSONL has the samples that are trained on and those that they were compared with: an import of it trains on the
    same ones. The table has every sample, with the reason where it is skipped.

    Example: [bold]babylon export 2026-11-05T14:00 --to exported[/]
    """
    from babylon_assets.environments.files.exports import art_lines

    stopping.begins_anew()
    settings = load_settings()
    settings.windows.parse(window)
    with opened(settings).connect() as conn:
        dataset, (facts, refused) = _dataset(conn, window), _steps(conn, window)
    to.mkdir(parents=True, exist_ok=True)
    stem = window.replace(":", "")
    lines = to / f"{stem}.jsonl"
    with lines.open("wb") as file:
        file.writelines(art_lines(dataset, facts, refused))
    output.print(f"{lines}: {_describe_lines(dataset)}", highlight=False, soft_wrap=True)
    if parquet:
        table = to / f"{stem}.parquet"
        write_parquet(dataset, table, facts, refused)
        output.print(f"{table}: {format_plural(len(dataset.samples), 'sample')}", highlight=False, soft_wrap=True)


def _describe_lines(dataset: Dataset) -> str:
    """How many samples are in the JSONL, and which are not, by the reason for which they were not compared."""
    from babylon_assets.environments.files.exports import was_compared

    trained = dataset.counts["trainable_samples"]
    compared = sum(map(was_compared, dataset.samples))
    others = Counter(str(sample.skip_reason) for sample in dataset.samples if not was_compared(sample))
    left = f"; not in it: {', '.join(f'{reason} ({number})' for reason, number in others.most_common())}"
    return f"{trained} samples and {compared - trained} that they are compared with{left if others else ''}"


def write_parquet(
    dataset: Dataset, path: Path, facts: Facts | None = None, refused: Collection[Place] = frozenset()
) -> None:
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
    polars.DataFrame(
        table_rows(dataset, facts or {}, refused), schema_overrides=types, infer_schema_length=None
    ).write_parquet(path)


def _dataset(conn: Connection, window: str) -> Dataset:
    from babylon_assets.ledger.datasets import load_dataset

    row = get_window(conn, window)
    if row is None or row.dataset_id is None:
        raise PermanentError(f"{window} has no dataset yet; train it, if `babylon windows` lists it")
    return load_dataset(conn, row.dataset_id)


def _steps(conn: Connection, window: str) -> tuple[Facts, set[Place]]:
    """What the environment reported of the window's steps, and the answers that it refused."""
    from babylon_assets.ledger.trajectories import read_heads

    facts: dict[tuple[str, int], StepFacts] = {}
    refused: set[Place] = set()
    for record in read_heads(conn, window):
        facts |= {(record.trajectory_id, fact.step): fact for fact in record.facts}
        heads = record.samples.heads if isinstance(record.samples, StoredSamples) else record.samples
        refused |= {(record.trajectory_id, head.step, head.call) for head in heads if head.refused}
    return facts, refused
