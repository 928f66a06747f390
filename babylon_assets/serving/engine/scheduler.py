"""The embedded engine behind the gateway: one thread that samples, for the server's event loop that asks.

The thread takes what waits into continuous batches, in the order that `fair_queue` gives: for each policy one of short
conversations and one of long ones. Keys take turns for equal times, and so do the batches of a key: neither another
key's conversations nor long ones hold up a short one. Of long prompts a part is read at each step. An answer keeps the
weights on which it began. What is heard of it goes back to the event loop once per step, for all answers together:
waking the loop costs more than a step's bookkeeping.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babylon_assets.domain.errors import CorruptLedger, MissingDependency
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights
from babylon_assets.serving.answers import Answer, Piece, Question, Target
from babylon_assets.serving.engine.batching import Batch, Generation
from babylon_assets.serving.engine.constraints import Constraint
from babylon_assets.serving.engine.engine import Library, completion
from babylon_assets.serving.engine.fair_queue import FairQueue, KeyTurns
from babylon_assets.serving.engine.texts import UNFINISHED, ChatTokenizer
from babylon_assets.serving.http.protocol import ApiError, Token
from babylon_assets.serving.long_work import LongWork

if TYPE_CHECKING:
    from babylon_assets.serving.engine.model_weights import Weights

#: Tokens of prompts that a batch may have unread before it takes in another.
READ_TOKENS = 2048
#: Tokens of a short conversation, with the longest answer that was asked for.
SHORT = 512
#: Characters that a tokenizer's normalizer may join into one.
JOINED = 4

_log = logging.getLogger(__name__)

#: Which weights, and whether for long conversations.
Lane = tuple[int, bool]


@dataclass(slots=True, eq=False)
class _Job:
    """A question's answers under way, as the event loop waits for them."""

    key: str
    weights: Weights
    generations: list[Generation]
    streamed: bool
    changed: asyncio.Event
    error: Exception | None = None

    @property
    def lane(self) -> Lane:
        longest = self.generations[0]
        return id(self.weights), len(longest.prompt) + longest.max_tokens > SHORT

    @property
    def done(self) -> bool:
        return self.error is not None or all(generation.finish_reason is not None for generation in self.generations)


class Scheduler:
    """A `Source` that samples on this machine.

    Args:
        library: where the policies' weights come from.
        loop: the event loop that asks.
        width: answers that are under way at the same time.
        queue: answers that may wait for a place.
        threads: CPU threads of each tensor operation.
    """

    def __init__(
        self, library: Library, loop: asyncio.AbstractEventLoop, *, width: int, queue: int, threads: int
    ) -> None:
        self._library, self._loop = library, loop
        self._threads, self._work = threads, LongWork()
        self.opens_thought = library.tokenizer.opens_thought
        self._queue: FairQueue[tuple[Generation, _Job]] = FairQueue(width, queue, _has_left)
        self._active: dict[Generation, _Job] = {}
        self._batches: dict[Lane, Batch] = {}
        self._turns: KeyTurns[Lane] = KeyTurns()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def prepare(self, policy: Target) -> None:
        self._load(policy)
        self._library.keep(_adapter(policy))

    def _load(self, policy: Target) -> Weights:
        """The policy's weights, which are compared with the ledger's before they are read from the disk."""
        adapter = _adapter(policy)
        if adapter is not None and self._library.cached(adapter) is None:
            verify_weights(adapter, policy.weights_sha256)
        return self._library.weights(adapter)

    def serves(self, policy: Target) -> bool:
        return not policy.path or (Path(policy.path) / WEIGHTS).is_file()  # a hosted one has an address for a folder

    def load(self) -> tuple[int, int]:
        with self._wake:
            return len(self._active), len(self._queue)

    def close(self) -> None:
        self._work.close()
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    async def answers(self, question: Question) -> list[Answer]:
        job = await self._begin(question, streamed=False)
        try:
            await job.changed.wait()
        finally:
            _cancel(job)
        if job.error is not None:
            raise job.error
        tokenizer, tokens = self._library.tokenizer, sum(len(generation.token_ids) for generation in job.generations)
        return await self._work.do(
            question.key,
            tokens * (1 + 2 * (question.top_logprobs or 0)),
            lambda: [_answer(generation, question, tokenizer) for generation in job.generations],
        )

    async def pieces(self, question: Question) -> AsyncGenerator[Piece]:
        job = await self._begin(question, streamed=True)
        readers = [
            _Reader(generation, index, question, self._library.tokenizer)
            for index, generation in enumerate(job.generations)
        ]
        try:
            while readers:
                await job.changed.wait()
                job.changed.clear()
                if job.error is not None:
                    raise job.error
                for reader in list(readers):
                    piece = await self._work.do(question.key, reader.microseconds, reader.read)
                    if piece is not None:
                        yield piece
                        if piece.whole is not None:
                            readers.remove(reader)
        finally:
            _cancel(job)

    async def _begin(self, question: Question, *, streamed: bool) -> _Job:
        adapter = _adapter(question.policy)
        weights = self._library.cached(adapter)
        if weights is None:
            try:
                weights = await self._loop.run_in_executor(None, self._load, question.policy)
            except CorruptLedger as error:
                _log.error("%s", error)
                reason = f"the weights of {question.policy.name} are not those that the ledger recorded"
                raise ApiError(503, reason, param="model", code="weights_differ") from None
        prompt = await self._prompt(question, weights.context)
        room = weights.context - len(prompt)
        constraints: Sequence[Constraint | None] = [None] * len(question.seeds)
        if question.is_constrained:
            constraints = await self._library.tokenizer.constrainer.constraints(question)
        generations = [
            Generation(
                prompt=prompt,
                seed=seed,
                max_tokens=min(question.max_tokens, room),
                temperature=question.temperature,
                top_p=question.top_p,
                stop=question.stop,
                top_logprobs=question.top_logprobs or 0,
                constraint=constraint,
            )
            for seed, constraint in zip(question.seeds, constraints, strict=True)
        ]
        job = _Job(question.key, weights, generations, streamed, asyncio.Event())
        self._submit(job)
        return job

    async def _prompt(self, question: Question, context: int) -> list[int]:
        """The conversation's tokens; a text that cannot fit is refused before it is cut into tokens."""
        tokenizer, listed = self._library.tokenizer, None if question.tools is None else question.tools.listed
        tokens = question.fewest_characters // (JOINED * tokenizer.longest)
        if tokens < context:
            microseconds = question.characters + 10 * len(question.messages)
            prompt = await self._work.do(
                question.key, microseconds, lambda: tokenizer.prompt(question.messages, listed)
            )
            tokens = len(prompt)
        if tokens >= context:
            reason = f"the conversation has {tokens} tokens or more and the model's context {context}"
            raise ApiError(400, reason, param="messages", code="context_length_exceeded")
        return prompt

    def _submit(self, job: _Job) -> None:
        with self._wake:
            if not self._queue.put(job.key, [(generation, job) for generation in job.generations]):
                raise ApiError(429, "too many answers wait for a place", code="queue_full", retry_after=1)
            self._wake.notify()

    def _run(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            while True:
                with self._wake:
                    while not (self._closed or len(self._queue) or self._active):
                        self._wake.wait()
                    if self._closed:
                        return
                    admitted = self._admitted()
                self._advance(admitted)

    def _admitted(self) -> list[tuple[Generation, _Job]]:
        """Those who get a place now, and are active from now on; no more of a batch than it can read soon."""
        admitted: list[tuple[Generation, _Job]] = []
        unread = Counter({lane: batch.unread for lane, batch in self._batches.items()})
        while (taken := self._queue.take(lambda waiting: unread[waiting[1].lane] < READ_TOKENS)) is not None:
            generation, job = taken[1]
            admitted.append(taken[1])
            self._active[generation] = job
            self._turns.enter(job.lane, job.key)
            unread[job.lane] += len(generation.prompt)
        return admitted

    def _advance(self, admitted: Sequence[tuple[Generation, _Job]]) -> None:
        """Those who were admitted join their batches, and the batch whose turn it is takes a step."""
        if any(job.lane not in self._batches for _, job in admitted):
            self._drop_idle({job.lane[0] for _, job in admitted})
        joining: dict[Lane, list[Generation]] = {}
        for generation, job in admitted:
            if job.lane not in self._batches:
                self._batches[job.lane] = Batch(job.weights, self._library.tokenizer.text)
            joining.setdefault(job.lane, []).append(generation)
        for lane, generations in joining.items():
            self._try(lane, lambda batch: batch.admit(generations))  # noqa: B023 - called at once
        busy = [lane for lane, batch in self._batches.items() if len(batch) or batch.unread]
        able = [lane for lane in busy if not self._batches[lane].waits] or busy
        if able:
            self._step(self._turns.next(able))
        self._tell()

    def _drop_idle(self, wanted: set[int]) -> None:
        """Free what batches of other weights hold that have nothing under way, before another one is begun."""
        idle = [lane for lane, batch in self._batches.items() if not len(batch) and not batch.unread]
        for lane in idle:
            if lane[0] not in wanted:
                del self._batches[lane]

    def _step(self, lane: Lane) -> None:
        started, is_long = time.perf_counter(), lane[1]
        self._try(lane, lambda batch: batch.step(one_portion=is_long))
        self._turns.spend(lane, time.perf_counter() - started)
        batch = self._batches.get(lane)
        if batch is not None and not len(batch) and any(other != lane[0] for other, _ in self._batches):
            del self._batches[lane]

    def _try(self, lane: Lane, advance: Callable[[Batch], None]) -> None:
        """Whatever one batch fails of, the others' answers go on."""
        try:
            advance(self._batches[lane])
        except Exception as error:
            _log.exception("a batch failed; its answers end with an error")
            del self._batches[lane]
            for job in self._active.values():
                if job.lane == lane:
                    job.error = error

    def _tell(self) -> None:
        for generation, job in self._active.items():
            if generation.refusal is not None and job.error is None:
                reason = f"the answer was ended, for its schema cannot be followed any further: {generation.refusal}"
                job.error = ApiError(400, reason, code="invalid_value")
        heard = {job for job in self._active.values() if job.streamed or job.done}
        ended = [
            generation
            for generation, job in self._active.items()
            if generation.finish_reason is not None or job.error is not None
        ]
        with self._wake:
            for generation in ended:
                job = self._active.pop(generation)
                self._queue.leave(job.key)
                self._turns.leave(job.lane, job.key)
        if heard:
            self._loop.call_soon_threadsafe(_set_all, [job.changed for job in heard])


def _has_left(waiting: tuple[Generation, _Job]) -> bool:
    return waiting[0].finish_reason is not None


def _set_all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        event.set()


def _cancel(job: _Job) -> None:
    """Free the places of what has not ended; the engine sees it before its next step."""
    for generation in job.generations:
        if generation.finish_reason is None:
            generation.finish_reason = "cancelled"


def _adapter(policy: Target) -> Path | None:
    if "://" in policy.path:
        raise MissingDependency(f"{policy.name} is kept by a hosted service; set GATEWAY_ENGINE=wandb to serve it")
    return Path(policy.path) if policy.path else None


def _answer(
    generation: Generation, question: Question, tokenizer: ChatTokenizer, *, with_tokens: bool = True
) -> Answer:
    whole = completion(generation, tokenizer)
    last = len(generation.token_ids) if question.with_end else generation.text_tokens
    with_tokens = with_tokens and question.top_logprobs is not None
    tokens = _tokens(generation, 0, last, tokenizer) if with_tokens else None
    return Answer(
        text=whole.text,
        finish_reason=whole.finish_reason,
        prompt_token_ids=whole.prompt_token_ids,
        token_ids=whole.token_ids,
        logprobs=whole.logprobs,
        tokens=tokens,
        prompt_tokens=len(whole.prompt_token_ids),
        completion_tokens=len(whole.token_ids),
    )


def _tokens(generation: Generation, start: int, end: int, tokenizer: ChatTokenizer) -> list[Token]:
    tokens = []
    for at in range(start, end):
        likeliest = generation.top[at] if generation.top_logprobs else ()
        top = [_token(tokenizer, token_id, value, []) for token_id, value in likeliest]
        tokens.append(_token(tokenizer, generation.token_ids[at], generation.logprobs[at], top))
    return tokens


def _token(tokenizer: ChatTokenizer, token_id: int, logprob: float, top: list[Token]) -> Token:
    text, raw = tokenizer.token(token_id)
    return Token(text, logprob, raw, top)


@dataclass(slots=True)
class _Reader:
    """What of an answer has been told already; text that may still change, or become a stop, is held back."""

    generation: Generation
    index: int
    question: Question
    tokenizer: ChatTokenizer
    _sent: int = 0
    _counted: int = 0
    _longest_stop: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._longest_stop = max(map(len, self.question.stop), default=0)

    @property
    def microseconds(self) -> float:
        """About how long it takes to read what is new: where a long stop is looked for, all comes at once."""
        return (len(self.generation.token_ids) - self._counted) * (1 + 2 * (self.question.top_logprobs or 0))

    def read(self) -> Piece | None:
        """What is new since the last time; None if that is nothing."""
        ended, count = self.generation.finish_reason is not None, self.generation.text_tokens
        text = self.tokenizer.text(self.generation.token_ids[:count])
        if ended:
            text = text[: self.generation.cut]
        else:
            text = text.rstrip(UNFINISHED)
            text = text[: max(0, len(text) - self._longest_stop + 1)] if self._longest_stop else text
        new = text[self._sent :]
        if not new and not ended:
            return None
        wanted: Any = self.question.top_logprobs
        last = len(self.generation.token_ids) if ended and self.question.with_end else count
        tokens = None if wanted is None else _tokens(self.generation, self._counted, last, self.tokenizer)
        self._sent, self._counted = max(self._sent, len(text)), count
        if not ended:
            return Piece(self.index, new, tokens)
        whole = _answer(self.generation, self.question, self.tokenizer, with_tokens=False)
        return Piece(self.index, new, tokens, whole)
