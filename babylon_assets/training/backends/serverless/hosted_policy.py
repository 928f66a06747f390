"""A hosted checkpoint as a policy that can be measured: its answers come from the hosted service's inference.

The service is asked with the gateway's own client (`serving.upstream`), some answers at a time. One that it does not
give, because it is busy or down, is asked for again a few times; an evaluation is whole or is not made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import PermanentError, TransientError
from babylon_assets.domain.policies import Completion, policy_name
from babylon_assets.domain.trajectories import Message
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.serving.answers import Answer, Question, Target
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.upstream import Upstream
from babylon_assets.training.backends.serverless.hosted_training import REQUEST_SECONDS

AT_ONCE = 16
#: Seconds before the second, third and fourth time; the service's own Retry-After comes before these.
WAITS = (1.0, 5.0, 15.0)


class HostedPolicy:
    """A `Policy` whose weights lie with the hosted service."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint) -> None:
        self.name = policy_name(checkpoint.chain, checkpoint.step)
        self._settings, self._checkpoint = settings, checkpoint
        self._target = Target(self.name, checkpoint.step, checkpoint.path)

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[Completion]:
        """Answer each conversation; token ids and log-probabilities are empty where the service gives none.

        Raises:
            TransientError: the service does not answer, however often it is asked.
            PermanentError: it refuses the key or the request.
        """
        questions = [
            Question(
                policy=self._target,
                messages=conversation,
                seeds=[seed],
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=1.0,
                stop=(),
                top_logprobs=None,
            )
            for conversation, seed in zip(conversations, seeds, strict=True)
        ]
        return [_completion(answer) for answer in asyncio.run(self._all(questions))]

    async def _all(self, questions: Sequence[Question]) -> list[Answer]:
        settings = self._settings
        upstream = Upstream(
            settings.serverless.url,
            settings.training.wandb_api_key or "",
            "wandb",
            self._checkpoint.base_model,
            seconds=REQUEST_SECONDS,
            most=AT_ONCE,
        )
        places = asyncio.Semaphore(AT_ONCE)
        try:
            return list(await asyncio.gather(*(self._ask(upstream, places, question) for question in questions)))
        finally:
            await upstream.end()

    async def _ask(self, upstream: Upstream, places: asyncio.Semaphore, question: Question) -> Answer:
        async with places:
            for wait in WAITS:
                try:
                    return (await upstream.answers(question))[0]
                except ApiError as error:
                    self._refuse(error)
                    await asyncio.sleep(wait if error.retry_after is None else error.retry_after)
            try:
                return (await upstream.answers(question))[0]
            except ApiError as error:
                self._refuse(error)
                raise TransientError(f"the hosted service does not answer for {self.name}: {error}") from error

    def _refuse(self, error: ApiError) -> None:
        """Raise what asking again does not change: the request or the key is refused."""
        if error.status < 500 and error.status != 429:
            raise PermanentError(
                f"the hosted service refuses to answer for {self.name} ({error.status}): {error}; with "
                "EVALUATE_HOSTED=false the gate decides without the market"
            ) from error


def _completion(answer: Answer) -> Completion:
    return Completion(
        answer.text,
        list(answer.prompt_token_ids or ()),
        list(answer.token_ids or ()),
        list(answer.logprobs or ()),
        answer.finish_reason,
    )
