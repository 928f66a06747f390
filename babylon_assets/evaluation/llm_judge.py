"""Asking a judge: ART's ruler over groups of answers, through litellm, with bounded retries and what each request cost.

What is asked, and what an answer means, is in `domain.llm_judge`. A group that could not be judged comes back with a
reason. What a provider says in an error is not repeated, it may hold a key: errors here name their kind and HTTP
status.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import litellm
from art.metrics import MetricsBuilder
from art.rewards.ruler import DEFAULT_RUBRIC, ruler
from litellm import exceptions
from openai import OpenAIError
from pydantic import ValidationError

from babylon_assets.config.scoring import JudgeSettings
from babylon_assets.domain.chat_turns import shown_text
from babylon_assets.domain.errors import PermanentError
from babylon_assets.domain.llm_judge import Comparison, JudgeAnswer, in_order

#: Requests under way at the same time; a judge's answer to a group takes seconds.
AT_ONCE = 8
ATTEMPTS_A_RUN = 3
#: Before the second attempt; twice as long before the third.
FIRST_WAIT_SECONDS = 1.0
_REFUSED = (exceptions.AuthenticationError, exceptions.PermissionDeniedError, exceptions.NotFoundError)


#: For a judge that takes no JSON schema, the form of the answer in words.
FORM = """
Answer with JSON and nothing else, in this form, each trajectory once:
{"scores": [{"trajectory_id": "1", "explanation": "...", "score": 0.5}]}
"""


def rubric_of(settings: JudgeSettings) -> str:
    """What the judge goes by."""
    return (settings.rubric or DEFAULT_RUBRIC) + ("" if settings.json_schema else FORM)


def judge(
    settings: JudgeSettings, asked: Iterable[tuple[Comparison, int]], keep: Callable[[Comparison, JudgeAnswer], None]
) -> None:
    """Ask about each comparison, at most so many times as is given with it; hand over each judgment as it comes.

    Raises:
        PermanentError: the judge refuses the key or has no such model; what was judged before was handed over.
    """
    with warnings.catch_warnings():
        # litellm's answers are not of the very types that it declares, which pydantic tells once per answer.
        warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
        asyncio.run(_judge(settings, list(asked), keep))


async def _judge(
    settings: JudgeSettings, asked: list[tuple[Comparison, int]], keep: Callable[[Comparison, JudgeAnswer], None]
) -> None:
    litellm.suppress_debug_info = True
    places = asyncio.Semaphore(AT_ONCE)

    async def judge_one(comparison: Comparison, attempts: int) -> None:
        async with places:
            keep(comparison, await _judge_comparison(settings, comparison, min(attempts, ATTEMPTS_A_RUN)))

    tasks = [asyncio.ensure_future(judge_one(*question)) for question in asked]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _judge_comparison(settings: JudgeSettings, comparison: Comparison, attempts: int) -> JudgeAnswer:
    meter = _Meter(settings.usd_per_million_tokens)
    error = ""
    attempt = 0
    for attempt in range(1, attempts + 1):
        try:
            with meter.activate_context():
                scores, explanations = await _request_scores(settings, comparison)
            return JudgeAnswer(scores, explanations, None, attempt, *meter.spent())
        except _REFUSED as refusal:
            raise _refused(settings, refusal) from None
        except exceptions.BadRequestError as refusal:
            error = _failure_reason(refusal)
            break
        except (OpenAIError, ValidationError, ValueError, TimeoutError) as failure:
            error = _failure_reason(failure)
        if attempt < attempts:
            await asyncio.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
    return JudgeAnswer(None, None, error, attempt, *meter.spent())


async def _request_scores(settings: JudgeSettings, comparison: Comparison) -> tuple[list[float], list[str]]:
    conversations: list[Any] = [
        [
            *({"role": message.role, "content": shown_text(message)} for message in candidate.messages),
            {"role": "assistant", "content": candidate.response},
        ]
        for candidate in comparison.candidates
    ]
    limit = settings.timeout_seconds
    assert settings.model is not None
    answered = await asyncio.wait_for(
        ruler(conversations, settings.model, _parameters(settings), rubric_of(settings)), limit
    )
    return in_order(
        comparison, ((candidate.trajectory_id, candidate.score, candidate.explanation) for candidate in answered)
    )


def _parameters(settings: JudgeSettings) -> dict[str, object]:
    """What litellm is told besides; without a key of ours, a server of ours gets no other provider's either."""
    given: dict[str, object] = {"timeout": settings.timeout_seconds, "num_retries": 0, "max_retries": 0}
    if not settings.json_schema:
        given["additional_drop_params"] = ["response_format"]
    if settings.url is not None:
        given |= {"api_base": settings.url, "api_key": "none"}
    return given | ({} if settings.api_key is None else {"api_key": settings.api_key})


def _refused(settings: JudgeSettings, error: Exception) -> PermanentError:
    if isinstance(error, exceptions.NotFoundError):
        return PermanentError(f"the judge has no model {settings.model}; correct RULER_MODEL or RULER_URL")
    return PermanentError(f"the judge {settings.model} refused the key; correct RULER_API_KEY")


def _failure_reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "the answer is not the JSON that was asked for"
    if isinstance(error, OpenAIError):
        status = getattr(error, "status_code", None)
        return type(error).__name__ + (f" (HTTP {status})" if status else "")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error)[:200]


class _Meter(MetricsBuilder):  # type: ignore[misc]
    """Counts what the requests of one comparison cost: ART tells the active builder of each of its judge's answers."""

    def __init__(self, usd_per_million_tokens: float | None) -> None:
        super().__init__("judge")
        self._price = usd_per_million_tokens
        self._prompt = self._completion = 0
        self._cost: float | None = None

    def add_response_cost(self, source: str, response: Any, **_: Any) -> float | None:
        usage = getattr(response, "usage", None)
        prompt, completion = (int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens"))
        self._prompt, self._completion = self._prompt + prompt, self._completion + completion
        cost = getattr(response, "_hidden_params", {}).get("response_cost") or None
        if cost is None and self._price is not None:
            cost = self._price * (prompt + completion) / 1e6
        if cost is not None:
            self._cost = (self._cost or 0.0) + float(cost)
        return cost

    def spent(self) -> tuple[int, int, float | None]:
        """Tokens of prompts and of answers, and dollars."""
        return self._prompt, self._completion, self._cost
