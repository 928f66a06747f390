"""The checks of the assets: each has a result per window, with its reason; some stop the window. One is of the chain.

A blocking check stops the later stages of its own window, in a run of one window and of many alike, and takes the
window's dataset off the window, so that nothing can train on it. Rules of the domain live in `domain`; what an asset
alone knows of its window is judged in the asset's module.
"""

import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from babylon_assets.domain.datasets import Dataset
from babylon_assets.domain.display_text import format_number, shorten_id
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.grouping import measure_range
from babylon_assets.domain.hindsight import too_suspicious
from babylon_assets.domain.samples import DatasetDraft
from babylon_assets.domain.token_counts import format_trainable
from babylon_assets.domain.trajectories import Quarantined
from babylon_assets.domain.understanding import Understanding
from babylon_assets.domain.windows import Window
from babylon_assets.ledger import windows as windows_ledger
from babylon_assets.ledger.database import Connection
from babylon_assets.ledger.windows import WindowRow
from babylon_assets.orchestration import stored_datasets
from babylon_assets.orchestration.metadata import code, harmless_text, numbers
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.stored_datasets import DatasetFaults
from babylon_assets.report.summary import MOST_IN_QUARANTINE

COMPLETE, QUARANTINE = "source_complete", "little_in_quarantine"
REWARD_RANGE, UNDERSTOOD = "reward_range", "understood"
TOKENS, HINDSIGHT, STABLE = "has_trainable_tokens", "no_hindsight", "ids_stable"
TRAINED, MEASURED, GATE = "trained_on_tokens", "measured", "gate"
STANDING = "no_window_stays_failed"
#: Reasons that a result lists, and windows that the standing check does.
SHOWN, SHOWN_WINDOWS = 10, 20

_ABOUT = {
    COMPLETE: "The window and WINDOW_GRACE_MINUTES after it are over: no more rows come.",
    QUARANTINE: "At most 5% of the window's rows are in quarantine.",
    REWARD_RANGE: "The rewards differ. Where all are equal, no answer is better than another.",
    UNDERSTOOD: "Of at least LEAST_UNDERSTOOD of the actions, of every kind, every word is known.",
    TOKENS: "The window has tokens to train on, or it is thin.",
    HINDSIGHT: "Every stored prompt and answer is as recorded. At most 5% of the prompts name a result; none trains.",
    STABLE: "The dataset, read back from the database, hashes to its id.",
    TRAINED: "The optimizer saw tokens, or the window was passed through.",
    MEASURED: "The window's checkpoint was measured, or it has none.",
    GATE: "The window's checkpoint was promoted, or it has none.",
}
BLOCKING = frozenset({COMPLETE, UNDERSTOOD, HINDSIGHT, STABLE})


def declare_checks(asset: str, names: Iterable[str], windows: dg.PartitionsDefinition[Any]) -> list[dg.AssetCheckSpec]:
    """The declarations of an asset's checks, each with a result per window. Dagster 1.13 calls that a preview."""
    with warnings.catch_warnings(action="ignore", category=dg.PreviewWarning):
        return [
            dg.AssetCheckSpec(
                name, asset=asset, description=_ABOUT[name], blocking=name in BLOCKING, partitions_def=windows
            )
            for name in names
        ]


def complete(window: Window, now: datetime, grace_minutes: float) -> dg.AssetCheckResult:
    """Whether the environment may still write into the window. Within the grace the check warns and stops nothing."""
    end = window.end
    settled = end + timedelta(minutes=grace_minutes)
    over = now >= end
    text = f"over since {end:%H:%M} UTC"
    if not over:
        text = f"the window is not over; materialize it after {end:%Y-%m-%d %H:%M} UTC"
    elif now < settled:
        text += f"; rows may still come until {settled:%H:%M} UTC"
    return dg.AssetCheckResult(
        check_name=COMPLETE,
        passed=now >= settled,
        severity=dg.AssetCheckSeverity.WARN if over else dg.AssetCheckSeverity.ERROR,
        description=text,
    )


def little_in_quarantine(window: str, read: int, quarantined: list[Quarantined]) -> dg.AssetCheckResult:
    """Whether at most MOST_IN_QUARANTINE of the window's rows could not be read."""
    share = len(quarantined) / max(1, read + len(quarantined))
    reasons = sorted({harmless_text(f"{row.reason} ({row.place})") for row in quarantined})[:SHOWN]
    return dg.AssetCheckResult(
        check_name=QUARANTINE,
        passed=share <= MOST_IN_QUARANTINE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(quarantined):,} of {read + len(quarantined):,} rows could not be read",
        metadata={"window": window, **numbers({"quarantined_share": share}), "reasons": reasons},
    )


def reward_range(known: Sequence[float]) -> dg.AssetCheckResult:
    """Whether the known rewards of a window differ; a window with fewer than two of them has nothing to differ."""
    best, worst = max(known, default=0.0), min(known, default=0.0)
    return dg.AssetCheckResult(
        check_name=REWARD_RANGE,
        passed=len(known) < 2 or bool(measure_range(best, worst)),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(known):,} known rewards, from {format_number(worst)} to {format_number(best)}",
    )


def understood(understanding: Understanding, least: float) -> dg.AssetCheckResult:
    """Whether enough of a window's words are known; the description names those that are not.

    Trades that the environment's own record lacks make a warning and stop nothing.
    """
    fault, unknown, lost = understanding.fault(least), understanding.list_words(), understanding.lost_trades()
    known = f"{understanding.share:.1%} understood{f'; not: {unknown}' if unknown else ''}"
    return dg.AssetCheckResult(
        check_name=UNDERSTOOD,
        passed=fault is None and lost is None,
        severity=dg.AssetCheckSeverity.ERROR if fault else dg.AssetCheckSeverity.WARN,
        description=code(fault or lost or known),
        metadata=numbers({"understood_share": understanding.share}),
    )


def trainable_tokens(dataset: Dataset | DatasetDraft, row: WindowRow) -> dg.AssetCheckResult:
    """Whether there is something to train on; a thin window is passed through."""
    tokens = dataset.counts["trainable_tokens"]
    thin = row.status == "thin"
    return dg.AssetCheckResult(
        check_name=TOKENS,
        passed=tokens > 0 or thin,
        description=f"thin window, passed through: {code(row.reason or '')}"
        if thin
        else f"{format_trainable(tokens, dataset.counts)} trainable tokens",
        metadata={"window": dataset.window, "trainable_tokens": tokens},
    )


def stored_dataset(
    conn: Connection, window: str, dataset_id: str, result_keys: tuple[str, ...]
) -> list[dg.AssetCheckResult]:
    """Look at a dataset as it is kept: does it hash to its id, and is it what was recorded and nothing more?"""
    try:
        faults = stored_datasets.look(conn, window, dataset_id, result_keys)
    except CorruptLedger as error:
        return [_check_result(STABLE, [str(error)], ""), _check_result(HINDSIGHT, ["the dataset cannot be read"], "")]
    return [
        _check_result(STABLE, faults.unstable, f"{faults.samples:,} samples hash to {shorten_id(dataset_id)}"),
        _hindsight(faults),
    ]


def _hindsight(faults: DatasetFaults) -> dg.AssetCheckResult:
    """A few prompts that name a result are skipped, and cost the window nothing else."""
    suspicious = faults.suspicious
    if not faults.wrong and too_suspicious(faults.agents, faults.samples):
        return _check_result(HINDSIGHT, suspicious, "")
    skipped = f"; {len(suspicious):,} are skipped, because their prompts name a result" if suspicious else ""
    return _check_result(HINDSIGHT, faults.wrong, f"{faults.samples:,} samples are as recorded{skipped}")


def _check_result(name: str, wrong: list[str], text: str) -> dg.AssetCheckResult:
    """An error with its first reasons, or what was found to be right."""
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return dg.AssetCheckResult(
        check_name=name,
        passed=not wrong,
        description=f"{code(wrong[0])}{more}" if wrong else text,
        metadata={"wrong": [harmless_text(text) for text in wrong[:SHOWN]]} if wrong else {},
    )


def build_standing_check() -> dg.AssetChecksDefinition:
    """The check of the chain as a whole, with one result for all windows: does a window stay failed, for a person?"""

    @dg.asset_check(
        asset="model_checkpoints",
        name=STANDING,
        description="No window of the chain stays failed, waiting for a person.",
    )
    def no_window_stays_failed(installation: dg.ResourceParam[Installation]) -> dg.AssetCheckResult:
        with installation.connect() as conn:
            failed = windows_ledger.failed(conn)
        reasons = {row.window_id: row.reason or "no reason was noted" for row in failed[-SHOWN_WINDOWS:]}
        listed = "\n".join(f"| {window} | {code(reason)} |" for window, reason in reasons.items())
        return dg.AssetCheckResult(
            passed=not failed,
            description=f"{len(failed)} windows stay failed" if failed else "no window stays failed",
            metadata={"failed_windows": dg.MetadataValue.md(f"| window | reason |\n|---|---|\n{listed}")}
            if failed
            else {},
        )

    return no_window_stays_failed
