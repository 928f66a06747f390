"""What the ledger remembers of hosted jobs: their ids before anyone waits for them, what they used, what a day cost.

How the service is spoken to is in `hosted_training`; which windows are trained, in `window_training`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger import training_jobs
from babylon_assets.ledger.database import Database


@dataclass(slots=True, kw_only=True)
class LedgerJournal:
    """The journal of one job, kept in its row of `training_jobs`; see `serverless.Journal`."""

    settings: Settings
    database: Database
    job: int
    manifest: dict[str, Any]
    external_id: str | None
    intended: bool
    expected_step: int
    lost_at: float | None = None

    @property
    def usage(self) -> dict[str, Any]:
        """What the row says that the job used; the manifest is what a later run attaches with."""
        with self.database.connect() as conn:
            return dict(training_jobs.get_job(conn, self.job).usage or {})

    def intend(self, tokens: int) -> None:
        """Note that a job is about to be submitted, with its estimated cost, unless the day's money is spent.

        Raises:
            PermanentError: the job would spend more than SERVERLESS_DAILY_USD.
        """
        estimate = tokens * self.settings.serverless.usd_per_million_tokens / 1e6
        with self.database.connect() as conn, conn.transaction():
            self._keep_cap(estimate, training_jobs.spent_today(conn, besides=self.job))
            usage = {"manifest": self.manifest, "sent_tokens": tokens}
            training_jobs.advance_job(conn, self.job, "submitted", usage=usage, cost_usd=estimate)

    def submitted(self, external_id: str) -> None:
        """Note the service's id of the job."""
        with self.database.connect() as conn:
            training_jobs.advance_job(conn, self.job, "submitted", external_id=external_id)

    def lost(self) -> None:
        """Note that the answer to the submission is lost, and when."""
        with self.database.connect() as conn:
            training_jobs.advance_job(conn, self.job, "submitted", usage={**self.usage, "answer_lost_at": time.time()})

    def alive(self) -> None:
        """Note a sign of life."""
        with self.database.connect() as conn:
            training_jobs.advance_job(conn, self.job, "submitted")

    def ended(self, step: int) -> None:
        """Note at which step the job has left the service's model."""
        with self.database.connect() as conn:
            training_jobs.advance_job(conn, self.job, "submitted", usage={**self.usage, "hosted_step": step})

    def _keep_cap(self, estimate: float, spent: float) -> None:
        cap = self.settings.serverless.daily_usd
        if cap is not None and spent + estimate > cap:
            raise PermanentError(
                f"this job would cost about {estimate:.2f} USD, {spent:.2f} USD are spent today and "
                f"SERVERLESS_DAILY_USD is {cap:.2f}; raise it, or train the window again after 00:00 UTC"
            )


def open_journal(
    settings: Settings, database: Database, job: training_jobs.Job, chain: str, manifest: dict[str, Any]
) -> LedgerJournal:
    """The journal of an attempt, with what runs before this one have written into its row."""
    with database.connect() as conn:
        expected = training_jobs.hosted_step(conn, chain)
    return LedgerJournal(
        settings=settings,
        database=database,
        job=job.id,
        manifest=manifest,
        external_id=job.external_id,
        intended=job.state == "submitted",
        expected_step=expected,
        lost_at=(job.usage or {}).get("answer_lost_at"),
    )
