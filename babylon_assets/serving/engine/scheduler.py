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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from babylon_assets.domain.errors import CorruptLedger, MissingDependency
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights
from babylon_assets.serving.answers import Answer, Piece, Question, Target
from babylon_assets.serving.engine.batching import Batch, Generation
from babylon_assets.serving.engine.constraints import Constraint
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.engine.fair_queue import FairQueue, KeyTurns
from babylon_assets.serving.engine.heard_answers import HeardAnswer, whole_answer
from babylon_assets.serving.engine.long_conversations import LongConversations, default_bytes
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.lasting_thread import LastingThread
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
        return id(self.weights), self.generations[0].length > SHORT

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
        cache_bytes: what the keys and values of long conversations may take; None: as it suits the device.
    """

    def __init__(
        self,
        library: Library,
        loop: asyncio.AbstractEventLoop,
        *,
        width: int,
        queue: int,
        threads: int,
        cache_bytes: int | None = None,
    ) -> None:
        self._library, self._loop = library, loop
        self._cache_bytes = cache_bytes or default_bytes(library.device)
        self._threads, self._work = threads, LongWork()
        self.opens_thought = library.tokenizer.opens_thought
        self._queue: FairQueue[tuple[Generation, _Job]] = FairQueue(width, queue, _has_left)
        self._active: dict[Generation, _Job] = {}
        self._batches: dict[Lane, Batch] = {}
        self._turns: KeyTurns[Lane] = KeyTurns()
        self._wake = threading.Condition()
        self._closed = self._failed = False
        self._asked: set[_Job] = set()
        self.thread = LastingThread(self._run, "engine")
        self.thread.start()

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
        self.thread.join()

    async def answers(self, question: Question) -> list[Answer]:
        job = await self._begin(question, streamed=False)
        try:
            await job.changed.wait()
        finally:
            self._leave(job)
        if job.error is not None:
            raise job.error
        tokenizer, tokens = self._library.tokenizer, sum(len(generation.token_ids) for generation in job.generations)
        return await self._work.do(
            question.key,
            tokens * (1 + 2 * (question.top_logprobs or 0)),
            lambda: [whole_answer(generation, question, tokenizer) for generation in job.generations],
        )

    async def pieces(self, question: Question) -> AsyncGenerator[Piece]:
        job = await self._begin(question, streamed=True)
        readers = [
            HeardAnswer(generation, index, question, self._library.tokenizer)
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
            self._leave(job)

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
            if self._failed:
                raise _engine_failed()
            if not self._queue.put(job.key, [(generation, job) for generation in job.generations]):
                raise ApiError(429, "too many answers wait for a place", code="queue_full", retry_after=1)
            self._asked.add(job)
            self._wake.notify()

    def _leave(self, job: _Job) -> None:
        """Free the places of what has not ended; the engine sees it before its next step."""
        self._asked.discard(job)
        for generation in job.generations:
            if generation.finish_reason is None:
                generation.finish_reason = "cancelled"

    def _run(self) -> None:
        try:
            self._sample()
        except BaseException:
            self._refuse_waiting()
            raise

    def _refuse_waiting(self) -> None:
        """Whoever waits is told at once that no answer comes, and so is whoever asks from now on."""
        with self._wake:
            self._failed = True
            waiting = [job for job in self._asked if not job.done]
        for job in waiting:
            job.error = _engine_failed()
        if waiting:
            self._loop.call_soon_threadsafe(_set_all, [job.changed for job in waiting])

    def _sample(self) -> None:
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
        long = LongConversations(
            (batch for (_, is_long), batch in self._batches.items() if is_long),
            self._cache_bytes,
            (job.key for job in self._active.values() if job.lane[1]),
        )

        def may_begin(waiting: tuple[Generation, _Job]) -> bool:
            generation, job = waiting
            can_be_read = unread[job.lane] < READ_TOKENS
            return can_be_read and (not job.lane[1] or long.has_room(job.weights, generation.length, job.key))

        while (taken := self._queue.take(may_begin)) is not None:
            generation, job = taken[1]
            admitted.append(taken[1])
            self._active[generation] = job
            self._turns.enter(job.lane, job.key)
            unread[job.lane] += len(generation.prompt)
            if job.lane[1]:
                long.begin(job.weights, generation.length, job.key)
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
        except BaseException as error:  # a panic of a library as well
            _log.exception("a batch failed; its answers end with an error")
            del self._batches[lane]
            for job in self._active.values():
                if job.lane == lane:
                    job.error = error if isinstance(error, Exception) else RuntimeError(str(error))

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


def _engine_failed() -> ApiError:
    reason = "the engine failed, and the gateway ends to be started again; ask again"
    return ApiError(503, reason, code="engine_failed", retry_after=2)


def _adapter(policy: Target) -> Path | None:
    if "://" in policy.path:
        raise MissingDependency(f"{policy.name} is kept by a hosted service; set GATEWAY_ENGINE=wandb to serve it")
    return Path(policy.path) if policy.path else None
