"""The hosted backend: W&B's service trains and keeps the weights; steps and answers are paid for."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.policies import Policy
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.training.backend import (
    Attempt,
    Availability,
    Capabilities,
    TrainedCheckpoint,
    TrainingBackend,
    TrainingRequest,
)
from babylon_assets.training.backends.serverless.hosted_catalogue import known_models, refused
from babylon_assets.training.backends.serverless.hosted_jobs import open_journal
from babylon_assets.training.backends.serverless.hosted_training import train_serverless

#: A name on the hub, and no folder or file.
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(?<!\.gguf)(?<!\.whl)")


class Serverless(TrainingBackend):
    """ART's ServerlessBackend, with a job whose id is in the ledger before anyone waits for it."""

    name = "serverless"
    title = "the hosted service"
    capabilities = Capabilities(
        imitates=False,
        branches=False,
        carries_late_samples=False,
        trains_here=False,
        keeps_weights_here=False,
        reads_texts=True,
        gateway_engine="wandb",
    )

    def availability(self, settings: Settings) -> Availability:
        """With a key."""
        if settings.training.wandb_api_key is not None:
            return Availability("WANDB_API_KEY is set")
        return Availability(
            "there is no key of W&B",
            SettingsError("TRAINING_BACKEND is serverless and there is no key; set WANDB_API_KEY to one of W&B"),
        )

    def require_base_model(self, base_model: str) -> None:
        """Whatever may be a name in the service's catalogue; whether it is one is asked before a job is submitted."""
        if base_model not in known_models() and not _HUB_NAME.fullmatch(base_model):
            raise refused(base_model, known_models())

    def find_base_model(self, settings: Settings) -> str:
        """The first of those that are known."""
        return known_models()[0]

    def manifest_settings(self, settings: Settings, base_model: str) -> dict[str, Any]:
        """What the service lets be chosen."""
        return {"learning_rate": settings.serverless.learning_rate, "clip_epsilon": settings.embedded.clip_epsilon}

    def versions(self) -> dict[str, str]:
        """ART's; the service's own are not known."""
        return {"openpipe-art": version("openpipe-art")}

    def train(
        self, settings: Settings, request: TrainingRequest, attempt: Attempt | None = None
    ) -> TrainedCheckpoint | None:
        """Submit a job and wait, or attach to the one that a run before this one submitted."""
        assert attempt is not None, "a paid job is always in the ledger"
        journal = open_journal(settings, attempt.database, attempt.job, request.chain, request.manifest)
        return train_serverless(settings, request, journal)

    def why_not_answering(self, settings: Settings, checkpoint: Checkpoint) -> str | None:
        """Without a key, or with EVALUATE_HOSTED=false."""
        if settings.training.wandb_api_key is None:
            return "its weights lie with the hosted service, and WANDB_API_KEY is not set"
        if not settings.gate.evaluate_hosted:
            return "its weights lie with the hosted service, and EVALUATE_HOSTED is false"
        return None

    def open_policy(self, settings: Settings, checkpoint: Checkpoint) -> Policy:
        """Asks the service's inference."""
        from babylon_assets.training.backends.serverless.hosted_policy import HostedPolicy

        return HostedPolicy(settings, checkpoint)
