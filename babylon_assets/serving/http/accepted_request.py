"""A request that the gateway accepted: what was asked, by whom, and the record of what was answered."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from babylon_assets.domain.chat_turns import read_tools
from babylon_assets.domain.policies import Caller
from babylon_assets.ledger.inference_calls import InferenceCall, check_storable
from babylon_assets.serving.answers import Answer, Question, Source
from babylon_assets.serving.http.forms.form import ReplyContext, WireForm
from babylon_assets.serving.http.keys import ANYBODY, Access
from babylon_assets.serving.http.metrics import Metrics
from babylon_assets.serving.http.protocol import ApiError, ChatRequest
from babylon_assets.serving.long_work import LongWork
from babylon_assets.serving.model_names import ModelNames
from babylon_assets.serving.policy_registry import Directory
from babylon_assets.serving.recorder import Recorder


@dataclass(slots=True)
class Parts:
    """What a gateway is made of, once it is ready.

    Attributes:
        answer_tokens: the longest answer that a request may ask for.
        names: what the `model` of a request means.
        work: does what would hold up the event loop.
    """

    source: Source
    directory: Directory
    recorder: Recorder | None
    access: Access
    answer_tokens: int
    metrics: Metrics
    model: str
    names: ModelNames
    work: LongWork = field(default_factory=LongWork)

    @property
    def failed(self) -> str | None:
        """The name of a thread that failed, without which this gateway is none; None while all go on."""
        recorder = None if self.recorder is None else self.recorder.thread
        threads = (self.source.thread, self.directory.thread, recorder)
        return next((thread.name for thread in threads if thread is not None and thread.failed), None)


@dataclass(frozen=True)
class AcceptedRequest:
    """A request that was accepted, and what is recorded of its answers."""

    parts: Parts
    form: WireForm
    request: ChatRequest
    question: Question
    caller: Caller
    key: str
    id: str
    started: float
    at: datetime

    @property
    def context(self) -> ReplyContext:
        """What the reply repeats of the question."""
        question = self.question
        return ReplyContext(self.request, self.id, int(self.at.timestamp()), question.policy.name, len(question.seeds))

    @property
    def headers(self) -> dict[str, str]:
        """What the reply says beside the answer: which fields of the request were ignored."""
        return {"x-babylon-ignored": ", ".join(self.request.ignored)} if self.request.ignored else {}

    @cached_property
    def _recorded(self) -> dict[str, Any]:
        """What the records of all its answers have alike."""
        question, policy = self.question, self.question.policy
        sampling = {"model": self.request.model, "top_p": question.top_p, "max_tokens": question.max_tokens}
        if question.stop:
            sampling["stop"] = list(question.stop)
        if question.tools is not None:
            sampling["tool_choice"] = question.tools.choice
        if question.response_format is not None:
            sampling["response_format"] = question.response_format
        if self.request.ignored:
            sampling["ignored"] = list(self.request.ignored)
        return {
            "created_at": self.caller.at or self.at,
            "model": self.parts.model,
            "policy": policy.name,
            "policy_step": policy.step,
            "agent_id": self.caller.agent,
            "trajectory_id": self.caller.trajectory,
            "step": self.caller.step,
            "messages": question.messages,
            "temperature": question.temperature,
            "sampling": sampling,
            "key_name": None if self.key == ANYBODY else self.key,
            "received_at": self.at,
            "tools": None if question.tools is None else read_tools(question.tools.listed),
        }

    def call(self, index: int, answer: Answer) -> InferenceCall:
        """The record of one of the answers; the first has the completion's own id."""
        recorded = self._recorded
        return InferenceCall(
            **recorded | {"sampling": {**recorded["sampling"], "choice": index}},
            call_id=self.id if index == 0 else f"{self.id}-{index}",
            response=answer.text,
            prompt_token_ids=answer.prompt_token_ids,
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            seed=self.question.seeds[index],
            latency_ms=1000 * (time.perf_counter() - self.started),
            finish_reason=answer.finish_reason,
            tool_calls=answer.tool_calls[: self.request.most_calls],
        )

    def require_recordable(self) -> None:
        """Refuse what could not be recorded, before anything of an answer leaves.

        Raises:
            ApiError: 400.
        """
        if self.parts.recorder is None:
            return
        try:
            check_storable({**self._recorded, "seed": self.question.seeds[0]})
        except ValueError as error:
            raise ApiError(400, f"the answer could not be recorded: {error}", code="invalid_value") from None

    async def record(self, answers: dict[int, Answer]) -> None:
        """Write the answers down and count them."""
        parts, recorder = self.parts, self.parts.recorder
        if recorder is not None:
            calls = [self.call(index, answer) for index, answer in answers.items()]
            await parts.work.do(self.key, self.question.characters * len(answers) / 100, lambda: recorder.record(calls))
        prompt = answers[0].prompt_tokens if 0 in answers else 0  # all answers are to the same one
        completion = sum(answer.completion_tokens for answer in answers.values())
        parts.access.spend(self.key, prompt + completion)
        parts.metrics.tokens.labels("prompt").inc(prompt)
        parts.metrics.tokens.labels("completion").inc(completion)
        parts.metrics.answers.labels(self.question.policy.name).inc(len(answers))
        parts.metrics.seconds.observe(time.perf_counter() - self.started)


def draw_seeds(seed: int | None, count: int) -> list[int]:
    """A seed per answer: the given one, then others that follow from it. All fit PostgreSQL's bigint, none is negative,
    as a random stream's must not be."""
    first = secrets.randbits(63) if seed is None else abs(seed)
    if count == 1:
        return [first]
    following = np.random.SeedSequence(first).generate_state(count - 1, np.uint64) >> np.uint64(1)
    return [first, *map(int, following)]
