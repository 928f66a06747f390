"""The seam of training: what a training backend is, what it is asked, and what it gives back.

A backend is given a parent, samples and settings, and makes a checkpoint. The core decides what is trained and writes
the ledger; a backend decides how, and where weights lie. How to write one is in docs/backends.md; `registry` finds it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import BabylonError, PermanentError
from babylon_assets.domain.policies import Policy
from babylon_assets.ledger import training_jobs
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.training.heartbeat import beating
from babylon_assets.training.selection import Selection


class NothingToResume(PermanentError):
    """A job that runs elsewhere was refused, has failed or is unknown there: the next run begins a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do, as data: the core asks for these and never for a backend's name.

    Attributes:
        imitates: trains on answers known as text only (`sft`). False: the core leaves these out, and counts them.
        recomputes_logprobs: the policies that answered can be read here, so that the core fills in log-probabilities
            that were not recorded before the backend sees the samples.
        branches: trains from any checkpoint. False: only from the newest step of a chain.
        carries_late_samples: late samples of earlier windows may join a dataset that it trains, and a sample may be
            compared with a running mean: the baseline of a group may be given.
        reproduces: the same samples, settings and parent give the same weights bit for bit; needs `restore_settings`.
        trains_here: the steps use this machine's processor or GPU.
        keeps_weights_here: a checkpoint's path is a folder on this machine, in peft's format, which the embedded engine
            serves and `babylon prune` removes. False: the backend answers for its checkpoints (`open_policy`).
        reads_texts: makes a prompt's tokens of its texts by a tokenizer of its own. The core leaves out what spells a
            model's own tokens, which would be made of it, and counts it.
        gateway_engine: what GATEWAY_ENGINE=auto is with this backend.
    """

    imitates: bool = True
    recomputes_logprobs: bool = False
    branches: bool = True
    carries_late_samples: bool = True
    reproduces: bool = False
    trains_here: bool = True
    keeps_weights_here: bool = True
    reads_texts: bool = False
    gateway_engine: str = "embedded"


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend can train with these settings on this machine.

    Attributes:
        reason: why it can, or what it lacks; part of the sentence that says why a backend was chosen.
        refusal: what is raised when TRAINING_BACKEND asks for it all the same; None when it can train.
    """

    reason: str
    refusal: BabylonError | None = None


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """Where a checkpoint stands: its step in its chain, and the folder of what it is trained from.

    Attributes:
        parent: the parent's folder, which is another chain's where a branch begins; None: the base model as it is. A
            backend that keeps no weights here goes by `TrainingRequest.parent_path`.
    """

    step: int
    parent: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """One training: what to train on, from where, and what to write into the checkpoint.

    Attributes:
        base_model: folder or hub name of the base model.
        chain: name of the chain, which is ART's name of the model.
        samples: what is trained on; never empty.
        manifest: what the checkpoint is made from; its hash is the checkpoint's id.
        place: where the checkpoint stands; None: after the newest one in the chain's folder, as ART has it.
        parent_path: `TrainedCheckpoint.path` of the parent; empty: the base model as it is.
    """

    base_model: str
    chain: str
    samples: Selection
    manifest: dict[str, Any]
    place: CheckpointPlace | None = None
    parent_path: str = ""


@dataclass(frozen=True, slots=True)
class TrainedCheckpoint:
    """A checkpoint that a backend made.

    Attributes:
        path: where it lies: a folder, or the name of the hosted service's artifact.
        weights_sha256: of its weights; the service's own id for weights that lie with it.
        steps: the metrics of each optimizer step, `tokens` and `seconds` among them.
    """

    path: str
    weights_sha256: str
    steps: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a training, as its row in `training_jobs` remembers it, also for the run after a kill."""

    database: Database
    job: training_jobs.Job

    @contextmanager
    def running(self) -> Iterator[None]:
        """The attempt trains in this process, or in one that ends with it: a kill ends it, and the next run retries."""
        with self.database.connect() as conn:
            training_jobs.advance_job(conn, self.job.id, "training")
        with beating(self.database, self.job.id):
            yield


class TrainingBackend(Protocol):
    """Makes checkpoints. Derive from this class: what is not abstract has the meaning of weights in a folder here.

    A training must be resumable, because a run may be killed at any moment and is then begun again with the same
    request. There are two ways, and the shipped backends show one each:

    1. The checkpoint appears whole or not at all (`folders.train_in_folder`): the next run finds it by its manifest and
       takes it up, or removes what is there and trains again.
    2. The training goes on elsewhere. Its id is written into the attempt's row, in the state `submitted`, before anyone
       waits for it; the next run is given the same row and attaches. It raises `NothingToResume` when there is nothing
       to attach to, and any other error leaves the job open.

    Attributes:
        name: what TRAINING_BACKEND, the ledger and the manifests call it. Never rename it: chains refer to it.
        title: what sentences call it, such as "the hosted service".
        capabilities: what it can.
    """

    name: str
    title: str
    capabilities: Capabilities

    @abstractmethod
    def availability(self, settings: Settings) -> Availability:
        """Whether it can train here and now; costs milliseconds, imports no heavy library and asks no network."""

    @abstractmethod
    def require_base_model(self, base_model: str) -> None:
        """Refuse what it cannot train, before anything is fetched or spent.

        Raises:
            BaseModelRefused: the message lists what it can train.
        """

    @abstractmethod
    def find_base_model(self, settings: Settings) -> str | None:
        """The base model when BASE_MODEL is not set; None when `prepare_base_model` has yet to make it."""

    def prepare_base_model(self, settings: Settings, progress: Any = None) -> str:
        """The same, made when it is missing."""
        model = self.find_base_model(settings)
        assert model is not None
        return model

    @abstractmethod
    def manifest_settings(self, settings: Settings, base_model: str) -> dict[str, Any]:
        """The settings that decide what a checkpoint becomes, as JSON: part of its id, so neither more nor less."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the packages that decide a checkpoint's numbers: part of its id as well."""

    @abstractmethod
    def train(
        self, settings: Settings, request: TrainingRequest, attempt: Attempt | None = None
    ) -> TrainedCheckpoint | None:
        """Make the checkpoint, or take up what a killed run left of it.

        Args:
            attempt: the attempt's row; None: a training that the ledger does not hear of, such as a reproduction.

        Returns:
            The checkpoint; None when no step was kept.

        Raises:
            TransientError: another try may do it.
            PermanentError: a person must act first; the message says what to do.
        """

    def restore_settings(self, settings: Settings, recorded: Mapping[str, Any]) -> Settings:
        """The settings with which `manifest_settings` gives what a checkpoint has; asked if it `reproduces`."""
        raise TypeError(f"the training backend {self.name} reproduces checkpoints and has no restore_settings")

    def why_not_answering(self, settings: Settings, checkpoint: Checkpoint) -> str | None:
        """Why a checkpoint whose weights are not here cannot be asked; None when it can."""
        raise TypeError(f"the training backend {self.name} keeps weights elsewhere and has no why_not_answering")

    def open_policy(self, settings: Settings, checkpoint: Checkpoint) -> Policy:
        """A checkpoint whose weights are not here, ready to answer."""
        raise TypeError(f"the training backend {self.name} keeps weights elsewhere and has no open_policy")
