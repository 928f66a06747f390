"""The hosted backend: ART's own ServerlessBackend, unmodified, with a job whose id is written down before the wait.

ART's backend registers the model, says its step and gives the client; the wait is ours, because ART's own keeps the
job's id to itself and loses it with the process. What is written down, and when, is the caller's `Journal`.

    register -> step as expected? -> journal.intend -> POST job -> journal.submitted -> events until the job ends

A POST whose answer is lost may have made a job, and the service lists none. The journal remembers the loss: the next
try waits for the step that such a job ends with, takes it up instead of paying again, and submits anew only when no
step has come for SERVERLESS_WAIT_MINUTES.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_chain, wait_fixed

from babylon_assets.config.settings import HIDDEN, Settings, prepare_libraries
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.display_text import is_number
from babylon_assets.domain.errors import BabylonError, ChainConflict, MissingDependency, PermanentError, TransientError
from babylon_assets.training.backend import NothingToResume, TrainedCheckpoint, TrainingRequest
from babylon_assets.training.backends.serverless.hosted_catalogue import require_offered
from babylon_assets.training.selection import trajectory_groups

if TYPE_CHECKING:
    from art.serverless.backend import ServerlessBackend

#: How long one request to the hosted service may take.
REQUEST_SECONDS = 120
#: Seconds between two looks at a job, and before each new try after a failure: 30 s in all, then the run gives up.
POLL_SECONDS = 1.0
WAITS = (2.0, 4.0, 8.0, 16.0)
#: Answers that may be other another time, though they are below 500.
_TRANSIENT_STATUS = (408, 425, 429)
#: Answers of a proxy that has lost the service's own.
_LOST_STATUS = (408, 504, 524)
#: The service's names of metrics, by ours.
_METRICS = {
    "loss": ("loss", "policy_loss", "loss/train"),
    "entropy": ("entropy", "loss/entropy"),
    "grad_norm": ("grad_norm", "loss/grad_norm"),
    "kl_to_behaviour": ("kl_to_behaviour", "kl_div", "loss/kl_div"),
    "tokens": ("tokens", "num_trainable_tokens", "train_tokens", "data/step_trainer_tokens"),
}


class NoHostedJob(NothingToResume):
    """There is no hosted job to wait for: it was refused, has failed, or is not known to the service."""


class Journal(Protocol):
    """What is remembered of a hosted job outside this process; each call is durable when it returns.

    Attributes:
        external_id: the service's id of a job that was submitted before, to attach to; None when there is none.
        intended: whether a job may have been submitted whose id is not known.
        expected_step: the service's step before the job.
        lost_at: when the answer to a submission was lost, in seconds of the epoch; None when none was.
    """

    external_id: str | None
    intended: bool
    expected_step: int
    lost_at: float | None

    def intend(self, tokens: int) -> None:
        """A job of so many tokens is about to be submitted. Raises PermanentError when it must not be."""

    def submitted(self, external_id: str) -> None: ...

    def lost(self) -> None:
        """The answer to the submission is lost: there may be a job."""

    def alive(self) -> None: ...

    def ended(self, step: int) -> None:
        """The job is over, and the service is at this step now."""


@dataclass(slots=True)
class _Progress:
    """What the events of a job have said so far; an event that comes twice is heard once."""

    steps: list[dict[str, float]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    last: str | None = None
    heard: float = field(default_factory=time.monotonic)
    ended: bool = False
    failure: str | None = None

    def hear(self, event: Any) -> None:
        if event.id in self.seen:
            return
        self.seen.add(event.id)
        self.last, self.heard = event.id, time.monotonic()
        if event.type == "gradient_step":
            self.steps.append({name: float(value) for name, value in event.data.items() if is_number(value)})
        elif event.type == "training_failed":
            self.failure = str(event.data.get("error_message", "no reason was given"))
        self.ended = event.type in ("training_ended", "training_failed")


def train_serverless(settings: Settings, request: TrainingRequest, journal: Journal) -> TrainedCheckpoint | None:
    """Train on the hosted service, or attach to the job that a run before this one submitted.

    Returns:
        The checkpoint, which lies with the service; None when the job ended without an optimizer step.

    Raises:
        TransientError: the service does not answer, or the job is silent for longer than SERVERLESS_WAIT_MINUTES.
        PermanentError: the service refuses the request or the key.
        BaseModelRefused: the service lists what it trains, and the base model is not among it.
        NoHostedJob: the job was refused, has failed, or is not known to the service.
        ChainConflict: the service's model is not at the step that the ledger says.
    """
    prepare_libraries(settings)
    try:
        from art.serverless.backend import ServerlessBackend
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{error.name} is not installed, which the hosted service is asked with; "
            "type: pip install 'babylon_assets[embedded]'"
        ) from error
    require_recorded(request.samples.policy_gradient)
    backend = ServerlessBackend(api_key=settings.training.wandb_api_key, base_url=settings.serverless.url)
    backend._client.timeout = REQUEST_SECONDS
    return asyncio.run(_HostedJob(settings, request, journal, backend).run())


def require_recorded(samples: list[Sample]) -> None:
    """Refuse samples that the service would drop without a word: those without token ids or log-probabilities."""
    unfit = [sample.sample_id for sample in samples if not sample.token_ids or not sample.logprobs]
    if unfit:
        raise PermanentError(
            f"{len(unfit)} samples have no recorded log-probabilities ({unfit[0]}, ...) and would be dropped; "
            "materialize training_datasets for the window again"
        )


def sent_tokens(samples: list[Sample]) -> int:
    """Tokens of prompts and answers, which is what a job is estimated by."""
    return sum(len(sample.prompt_token_ids or []) + len(sample.token_ids or []) for sample in samples)


@dataclass(slots=True)
class _HostedJob:
    settings: Settings
    request: TrainingRequest
    journal: Journal
    backend: ServerlessBackend

    async def run(self) -> TrainedCheckpoint | None:
        from art import TrainableModel

        model: Any = TrainableModel(
            name=self.request.chain, project=self.settings.training.wandb_project, base_model=self.request.base_model
        )
        if self.journal.external_id is None:
            require_offered(self.settings, self.request.base_model)
        try:
            await self._tried(lambda: self.backend.register(model))
            progress = await self._progress(model)
            step = await self._tried(lambda: self.backend._get_step(model))
            self.journal.ended(step)
            if progress.failure is not None:
                raise NoHostedJob(
                    f"the hosted job {self.journal.external_id} failed: {self._safe(progress.failure)}; "
                    "correct what it names, then train the window again"
                )
            return await self._trained_checkpoint(model, step, progress)
        finally:
            await self.backend.close()

    async def _progress(self, model: Any) -> _Progress:
        """The job's events until its end; those of a job whose id was lost are not known."""
        if self.journal.external_id is None:
            step = await self._step_of_lost_job(model)
            if self.journal.intended and step == self.journal.expected_step + 1:
                return _Progress(steps=[{}], ended=True)
            if step != self.journal.expected_step:
                raise ChainConflict(
                    f"the hosted model {self.request.chain} is at step {step} and the ledger at "
                    f"{self.journal.expected_step}: something else trained it; set BABYLON_MODEL to a new name to "
                    "begin a new chain, or delete the steps that the ledger does not know from the W&B project"
                )
            await self._submit(model)
        return await self._follow()

    async def _step_of_lost_job(self, model: Any) -> int:
        """The model's step; where there may be a job that nobody can ask for, only once that has had time to end."""
        while True:
            step: int = await self._tried(lambda: self.backend._get_step(model))
            lost, patience = self.journal.lost_at, 60 * self.settings.serverless.wait_minutes
            if step != self.journal.expected_step or lost is None or time.time() - lost > patience:
                return step
            self.journal.alive()
            await asyncio.sleep(POLL_SECONDS)

    async def _submit(self, model: Any) -> None:
        from art.serverless.client import ExperimentalTrainingConfig

        samples = self.request.samples.policy_gradient
        self.journal.intend(sent_tokens(samples))
        config = ExperimentalTrainingConfig(
            learning_rate=self.settings.serverless.learning_rate,
            epsilon=self.settings.embedded.clip_epsilon,
            ppo=True,
            scale_rewards=False,
        )
        client: Any = self.backend._client
        try:
            job = await client.training_jobs.create(
                model_id=model.id,
                trajectory_groups=trajectory_groups(samples, self.request.samples.baselines),
                experimental_config=config,
            )
        except Exception as error:
            named = self._named(error)
            if _is_lost(error):
                self.journal.lost()
            raise NoHostedJob(str(named)) if isinstance(named, PermanentError) else named from None
        self.journal.external_id = job.id
        self.journal.submitted(job.id)

    async def _follow(self) -> _Progress:
        progress = _Progress()
        while not progress.ended:
            await self._tried(lambda: self._listen(progress))
            self.journal.alive()
            if time.monotonic() - progress.heard > 60 * self.settings.serverless.wait_minutes:
                raise TransientError(
                    f"the hosted job {self.journal.external_id} has said nothing for "
                    f"{self.settings.serverless.wait_minutes:g} minutes; train the window again to attach to it"
                )
            if not progress.ended:
                await asyncio.sleep(POLL_SECONDS)
        return progress

    async def _listen(self, progress: _Progress) -> None:
        from openai._types import NOT_GIVEN

        client: Any = self.backend._client
        events = client.training_jobs.events
        async for event in events.list(
            training_job_id=self.journal.external_id, after=progress.last if progress.last is not None else NOT_GIVEN
        ):
            progress.hear(event)
            if progress.ended:
                return

    async def _trained_checkpoint(self, model: Any, step: int, progress: _Progress) -> TrainedCheckpoint | None:
        if step <= self.journal.expected_step or not progress.steps:
            return None
        client: Any = self.backend._client
        async for checkpoint in client.models.checkpoints.list(limit=1, order="desc", model_id=model.id):
            name = self.backend._model_inference_name(model, step)
            samples = self.request.samples.policy_gradient
            tokens = sum(len(sample.token_ids or []) for sample in samples)
            return TrainedCheckpoint(name, f"hosted:{checkpoint.id}", steps_of(progress.steps, tokens))
        return None

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The result of a call that is safe to repeat, tried again after each of `WAITS`."""
        tries = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_chain(*map(wait_fixed, WAITS)),
            stop=stop_after_attempt(len(WAITS) + 1),
            reraise=True,
        )
        return await tries(self._called, call)

    async def _called(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except Exception as error:
            raise self._named(error) from None

    def _named(self, error: Exception) -> BabylonError:
        """An error of the client as one of ours. Its chain is cut: the request in it carries the key."""
        import openai

        if isinstance(error, BabylonError):
            return error
        if not isinstance(error, openai.APIStatusError):
            if isinstance(error, openai.APIConnectionError):
                return TransientError(f"the hosted service at {self.settings.serverless.url} does not answer")
            return PermanentError(
                f"the hosted service gave an answer that ART cannot read ({type(error).__name__}); "
                "check that SERVERLESS_URL points at it"
            )
        code = error.status_code
        if code == 404 and self.journal.external_id is not None:
            return NoHostedJob(
                f"the hosted service does not know the job {self.journal.external_id}; train the window again"
            )
        if code in (401, 403):
            return PermanentError(
                f"the hosted service refused the key ({code}); set WANDB_API_KEY to a valid one, or "
                "TRAINING_BACKEND=embedded to train on this machine"
            )
        if code >= 500 or code in _TRANSIENT_STATUS:
            return TransientError(f"the hosted service answered {code}")
        return PermanentError(
            f"the hosted service refused the request ({code}): {self._safe(str(error.message))}; "
            "correct what it names, then train the window again"
        )

    def _safe(self, text: str) -> str:
        """Text of the service without the key, and not endless."""
        return text.replace(self.settings.training.wandb_api_key or HIDDEN, HIDDEN)[:500]


def _is_lost(error: Exception) -> bool:
    """Whether a request may have been carried out though its answer did not come."""
    import httpx
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _LOST_STATUS
    unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return isinstance(error, openai.APIConnectionError) and not isinstance(error.__cause__, unsent)


def steps_of(steps: list[dict[str, float]], trained_tokens: int) -> list[dict[str, float]]:
    """The metrics of a job's steps under our names: those that every step has.

    Where the service does not say how many tokens a step saw, those of the job are shared out among its steps.
    """
    named = [
        {ours: next((step[name] for name in theirs if name in step), None) for ours, theirs in _METRICS.items()}
        for step in steps
    ]
    known = [name for name in _METRICS if all(step[name] is not None for step in named)]
    shared = {"tokens": trained_tokens / max(1, len(steps)), "seconds": 0.0}
    return [{**shared, **{name: float(step[name] or 0.0) for name in known}} for step in named]
