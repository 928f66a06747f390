"""The nightly evaluation: the served policy on more held-out markets than a gate can wait for.

The boards of the gate are among them, and the interval is half as wide at four times as many. It is kept like every
measurement, under the checkpoint and the version of the examination, so that a policy is examined in one night only.
"""

from __future__ import annotations

from dataclasses import dataclass

from babylon_assets.config.settings import Settings
from babylon_assets.domain.evaluations import Interval
from babylon_assets.environments.registry import open_environment
from babylon_assets.evaluation.loaded_policies import why_not_loadable
from babylon_assets.evaluation.measurements import kept_benchmark, measure_benchmark
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.evaluations import Evaluation


@dataclass(frozen=True, slots=True)
class NightlyEvaluation:
    """What is known of the served policy after a night.

    Attributes:
        checkpoint: what is served; None before anything is.
        evaluation: what was measured; None where it cannot be played here.
        fresh: whether it was measured now, and not in a night before.
        reason: why there is no evaluation.
    """

    checkpoint: Checkpoint | None
    evaluation: Evaluation | None = None
    fresh: bool = False
    reason: str | None = None

    @property
    def gain_on_base(self) -> Interval | None:
        """Market reward less that of the base model, seed by seed."""
        difference = self.evaluation.results.get("difference") if self.evaluation else None
        return Interval(*difference) if difference else None


def evaluate_promoted(settings: Settings, database: Database) -> NightlyEvaluation:
    """Evaluate the served policy, and once the base model to compare it with, unless that was done before."""
    seeds = settings.automation.nightly_seeds
    with database.connect() as conn:
        served = promotions.promoted(conn, settings.model_name)
        line = checkpoints.chain(conn, settings.model_name)
        kept = kept_benchmark(settings, conn, served, seeds) if served else None
    if served is None:
        return NightlyEvaluation(None, reason="nothing was promoted yet")
    if kept is not None:
        return NightlyEvaluation(served, kept)
    if open_environment(settings).benchmark is None:
        return NightlyEvaluation(served, reason="its environment has no benchmark of its own")
    if (reason := why_not_loadable(settings, served)) is not None:
        return NightlyEvaluation(served, reason=reason)
    measure_benchmark(settings, database, line[0], seeds=seeds)
    return NightlyEvaluation(served, measure_benchmark(settings, database, served, line[0], seeds), fresh=True)
