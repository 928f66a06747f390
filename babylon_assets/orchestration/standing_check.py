"""The standing check: which windows stay failed and wait for a person; made with every run of the line, and hourly.

What is done about a failed window is in `docs/incidents`; running it again is a person's or a sensor's business.
"""

import dagster as dg

from babylon_assets.ledger import windows
from babylon_assets.orchestration.assets.model_checkpoints import NAME as CHECKPOINTS
from babylon_assets.orchestration.resources import Installation

NAME = "no_window_stays_failed"
SHOWN = 20


def build_standing_check() -> dg.AssetChecksDefinition:
    """The check, of the chain as a whole: one result for all windows."""

    @dg.asset_check(
        asset=CHECKPOINTS, name=NAME, description="No window of the chain stays failed, waiting for a person."
    )
    def no_window_stays_failed(installation: dg.ResourceParam[Installation]) -> dg.AssetCheckResult:
        with installation.connect() as conn:
            failed = windows.failed(conn)
        listed = "\n".join(f"| {row.window_id} | {_cell(row.reason)} |" for row in failed[-SHOWN:])
        return dg.AssetCheckResult(
            passed=not failed,
            description=f"{len(failed)} windows stay failed" if failed else "no window stays failed",
            metadata={"failed_windows": dg.MetadataValue.md(f"| window | reason |\n|---|---|\n{listed}")}
            if failed
            else {},
        )

    return no_window_stays_failed


def _cell(reason: str | None) -> str:
    return (reason or "no reason was noted").replace("|", "\\|").replace("\n", " ")
