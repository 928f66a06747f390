"""Continuous batches: answers of one policy that are sampled side by side, each joining and leaving when it wants.

Each answer has a random stream of its own, so that it depends on its own seed and conversation only. Log-probabilities
are those at temperature 1, whatever the answer was sampled at. Threads, queues and names are not known here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from babylon_assets.serving.engine.decoder import ROWS, Cache, Segment, decode, prefill, rounded
from babylon_assets.serving.engine.model_weights import Weights

if TYPE_CHECKING:
    import torch

    from babylon_assets.serving.engine.constraints import Constraint

#: Prompt tokens that are read in one go, fewest and most; how many depends on how much each has to look at.
LEAST_READ, PREFILL_TOKENS = 32, 512
#: Looks of one token at another that a CPU takes in one go, about, so that what one go takes hardly depends on where in
#: a prompt it is; and how many times as many a GPU takes.
PREFILL_WORK, GPU_WORK = 2**18, 64

#: Seconds that a step waits for a mask where nothing else can be done; then who came meanwhile is taken in.
LONGEST_PAUSE = 0.002

Decode = Callable[[Sequence[int]], str]
#: A part of a prompt; the last one comes with its answer.
Planned = tuple["Generation | None", Segment]


@dataclass(slots=True, eq=False)
class Generation:
    """One answer that is asked for, and as far as it has been sampled.

    Attributes:
        prompt: token ids of the conversation, up to where the answer begins.
        temperature: 0 takes the likeliest token.
        top_p: only the likeliest tokens that together have this probability are drawn from.
        stop: texts at which the answer ends; it holds none of them.
        top_logprobs: how many of the likeliest tokens are wanted at each place.
        token_ids, logprobs: what was sampled, and its natural log-probabilities at temperature 1.
        top: per token the likeliest ones, with their log-probabilities.
        text_tokens: how many of `token_ids` are text: all but an end of turn.
        finish_reason: `stop`, `length`, `cancelled` or `refused`; None while it goes on.
        cut: where in the text a stop begins, None without one.
        constraint: which tokens may come next; None where all may.
        refusal: why it cannot follow its constraint any more; None while it can.
    """

    prompt: list[int]
    seed: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    text_tokens: int = 0
    finish_reason: str | None = None
    cut: int | None = None
    constraint: Constraint | None = None
    refusal: str | None = None
    _rng: np.random.Generator | None = None

    def draw(self) -> float:
        """The next number of this answer's own stream, uniform in [0, 1)."""
        if self._rng is None:
            self._rng = np.random.default_rng(self.seed)
        return self._rng.random()

    @property
    def length(self) -> int:
        """Tokens of the conversation with the longest answer that was asked for."""
        return len(self.prompt) + self.max_tokens

    @property
    def waits(self) -> bool:
        """Whether it is not known yet which token may come next."""
        return self.constraint is not None and not self.constraint.next.done()

    def refuse_if_stuck(self) -> bool:
        """End it where its constraint cannot be followed any more; says whether that is so."""
        error = self.constraint.error if self.constraint is not None else ""
        if error:
            self.refusal, self.finish_reason = error, self.finish_reason or "refused"
        return bool(error)


class Batch:
    """The answers of one policy that are under way.

    A prompt that begins as one in the cache does, of an answer that is under way or was, is read from where they part:
    the players of a room are shown the same board, and all prompts begin with the same instructions.

    The others' steps do not wait for an answer whose mask is not made yet. Its logits are kept until then.

    Args:
        weights: of the policy.
        text: token ids to text; asked only for answers with a stop.
    """

    def __init__(self, weights: Weights, text: Decode) -> None:
        self.weights = weights
        self._text = text
        self._cache = Cache(weights)
        self._rows: list[Generation | None] = []
        self._unread: deque[Planned] = deque()
        self._late: list[tuple[Generation, torch.Tensor]] = []  # with the logits [vocabulary] of its next token
        self._work = PREFILL_WORK * (1 if weights.embedding.device.type == "cpu" else GPU_WORK)
        self._has_read = False  # whether the last step read a portion
        self._read = np.full((0, 0), -1, dtype=np.int32)  # the prompt tokens in each row of the cache, then -1

    def __len__(self) -> int:
        """How many answers are under way."""
        return sum(row is not None for row in self._rows)

    @property
    def unread(self) -> int:
        """Prompt tokens that wait to be read."""
        return sum(len(segment.tokens) for _, segment in self._unread)

    @property
    def waits(self) -> bool:
        """Whether nothing can be done before a mask is made."""
        late = [generation for generation, _ in self._late if generation.finish_reason is None and generation.waits]
        return len(late) == len(self) > 0 and not self._unread

    def cache_bytes(self, joining: Sequence[int]) -> int:
        """What keys and values take in memory once answers of so many tokens each, with their prompts, have joined."""
        rows = max(len(self._rows), len(self) + len(joining))
        return self._cache.bytes_with(rows, max(joining, default=-1) + 1)

    def admit(self, generations: Sequence[Generation]) -> None:
        """Take in answers; the next steps read their prompts, and each begins when its own is read."""
        rows = [self._place(generation) for generation in generations]
        self._fit(max(generation.length for generation in generations))
        for generation, row in zip(generations, rows, strict=True):
            self._unread.extend(self._plan(generation, row))

    def _read_prompts(self, *, one_portion: bool) -> None:
        """Read prompts in the order in which they came, for a later one may build on an earlier one's row."""
        while self._unread:
            portion = _portion(self._unread, self._work)
            logits = prefill(self.weights, self._cache, [segment for _, segment in portion])
            ended = [at for at, (generation, _) in enumerate(portion) if generation is not None]
            if ended:
                done = [generation for generation, _ in portion if generation is not None]
                self._sampled(done, logits[ended] if len(ended) < len(portion) else logits)
            if one_portion:
                return

    def _fit(self, length: int) -> None:
        self._cache.fit(len(self._rows), length + 1)  # the last position is for rows that are not used
        rows, columns = self._cache.rows, max(length, self._read.shape[1])
        if (rows, columns) != self._read.shape:
            grown = np.full((rows, columns), -1, dtype=np.int32)
            grown[: len(self._read), : self._read.shape[1]] = self._read
            self._read = grown

    def _plan(self, generation: Generation, row: int) -> Iterator[Planned]:
        """The segments of a prompt that have to be read; the last comes with its answer, which begins then."""
        prompt = np.asarray(generation.prompt, dtype=np.int32)
        alike = self._read[:, : len(prompt)] == prompt
        shared = np.where(alike.all(axis=1), len(prompt), alike.argmin(axis=1))
        source = int(shared.argmax())
        start = max(0, min(int(shared[source]), len(prompt) - ROWS))
        self._read[row] = -1
        self._read[row, : len(prompt)] = prompt
        while start < len(prompt):
            length = self._work // (start + PREFILL_TOKENS) // ROWS * ROWS
            end = min(start + min(max(length, LEAST_READ), PREFILL_TOKENS), len(prompt))
            yield generation if end == len(prompt) else None, Segment(row, start, generation.prompt[start:end], source)
            source, start = row, end

    def step(self, *, one_portion: bool = False) -> None:
        """Sample the next token of every answer.

        Args:
            one_portion: do not read all prompts first; a step reads as much of them as goes in one go, and the next one
                samples.
        """
        self._has_read = bool(self._unread) and not (one_portion and self._has_read)
        if self._has_read:
            self._read_prompts(one_portion=one_portion)
            if one_portion:
                return
        if self.waits:
            wait([g.constraint.next for g, _ in self._late if g.constraint], LONGEST_PAUSE, return_when=FIRST_COMPLETED)
        self._sample_late()
        self._release()
        while self._rows and self._rows[-1] is None:
            self._rows.pop()
        late = {generation for generation, _ in self._late}
        active = [
            (row, generation)
            for row, generation in enumerate(self._rows)
            if generation is not None and generation.token_ids and generation not in late
        ]
        if not active:
            return
        width = rounded(len(self._rows), ROWS)
        tokens, positions = [0] * width, [-1] * width
        for row, generation in active:
            tokens[row], positions[row] = (
                generation.token_ids[-1],
                len(generation.prompt) + len(generation.token_ids) - 1,
            )
        logits = decode(self.weights, self._cache, tokens, positions)
        self._sampled([generation for _, generation in active], logits[[row for row, _ in active]])

    def _place(self, generation: Generation) -> int:
        """The lowest free row, so that few rows are computed."""
        for row, taken in enumerate(self._rows):
            if taken is None:
                self._rows[row] = generation
                return row
        self._rows.append(generation)
        return len(self._rows) - 1

    def _release(self) -> None:
        """Free the rows of answers that have ended or were cancelled."""
        for row, generation in enumerate(self._rows):
            if generation is not None and generation.finish_reason is not None:
                self._rows[row] = None

    def _sample_late(self) -> None:
        """Sample those whose masks were made since, and forget those who ended."""
        late = [entry for entry in self._late if entry[0].finish_reason is None]
        self._late = [entry for entry in late if entry[0].waits]
        still = {generation for generation, _ in self._late}
        ready = [entry for entry in late if entry[0] not in still]
        if ready:
            self._sampled([generation for generation, _ in ready], _stack([logits for _, logits in ready]))

    def _sampled(self, generations: Sequence[Generation], logits: torch.Tensor) -> None:
        if any(generation.constraint is not None for generation in generations):
            generations, logits = self._able(generations, logits)
        if generations:
            self._take_tokens(generations, logits.float())
        self._release()

    def _able(
        self, generations: Sequence[Generation], logits: torch.Tensor
    ) -> tuple[Sequence[Generation], torch.Tensor]:
        """Those of whom it is known what may come next. Of the others, some wait for it and some end."""
        able = []
        for row, generation in enumerate(generations):
            if generation.waits:
                self._late.append((generation, logits[row].clone()))
            elif not generation.refuse_if_stuck():
                able.append(row)
        if len(able) == len(generations):
            return generations, logits
        return [generations[row] for row in able], logits[able]

    def _take_tokens(self, generations: Sequence[Generation], logits: torch.Tensor) -> None:
        for generation, token, logprob, top in zip(generations, *sample(logits, generations), strict=True):
            generation.token_ids.append(token)
            generation.logprobs.append(logprob)
            if generation.top_logprobs:
                generation.top.append([likely for likely in top[: generation.top_logprobs] if likely[1] > -np.inf])
            self._look_for_the_end(generation, token)
            if generation.constraint is not None and generation.finish_reason is None:
                generation.constraint.accept(token)

    def _look_for_the_end(self, generation: Generation, token: int) -> None:
        if token in self.weights.ends:
            generation.finish_reason = generation.finish_reason or "stop"
            return
        generation.text_tokens += 1
        if generation.stop:
            text = self._text(generation.token_ids)
            ends = [at for at in map(text.find, generation.stop) if at >= 0]
            if ends:
                generation.cut, generation.finish_reason = min(ends), generation.finish_reason or "stop"
                return
        if len(generation.token_ids) >= generation.max_tokens:
            generation.finish_reason = generation.finish_reason or "length"


def _portion(planned: deque[Planned], most_work: int) -> list[Planned]:
    """The first ones, taken out: as many as are read in one go, at least one."""
    portion = [planned.popleft()]
    tokens, work = len(portion[0][1].tokens), _work(portion[0][1])
    while planned:
        tokens, work = tokens + len(planned[0][1].tokens), work + _work(planned[0][1])
        if tokens > PREFILL_TOKENS or work > most_work:
            break
        portion.append(planned.popleft())
    return portion


def _work(segment: Segment) -> int:
    return len(segment.tokens) * (segment.start + len(segment.tokens))


def _stack(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.stack(list(rows))


Sampled = tuple[list[int], list[float], list[list[tuple[int, float]]]]


def sample(logits: torch.Tensor, generations: Sequence[Generation]) -> Sampled:
    """One token per row of `logits`, its log-probability at temperature 1, and the likeliest tokens where wanted.

    A token is where the cumulative distribution over the vocabulary passes the answer's next random number. What an
    answer's constraint refuses is no part of the distribution.
    """
    import torch

    for row, generation in enumerate(generations):
        if generation.constraint is not None:
            generation.constraint.next.result().apply(logits[row])
    logprobs = torch.log_softmax(logits, dim=-1)
    greedy = [generation.temperature == 0 for generation in generations]
    chosen = logprobs.argmax(dim=-1) if all(greedy) else _drawn(logits, generations)
    if any(greedy) and not all(greedy):
        chosen = torch.where(torch.tensor(greedy, device=logits.device), logprobs.argmax(dim=-1), chosen)
    picked = logprobs.gather(1, chosen[:, None]).squeeze(1)
    return chosen.tolist(), picked.tolist(), _likeliest(logprobs, generations)


def _drawn(logits: torch.Tensor, generations: Sequence[Generation]) -> torch.Tensor:
    import torch

    scaled = logits.double()
    if any(generation.temperature not in (0, 1) for generation in generations):
        divisors = [generation.temperature or 1.0 for generation in generations]
        scaled = scaled / torch.tensor(divisors, dtype=torch.float64, device=logits.device)[:, None]
    probabilities = torch.softmax(scaled, dim=-1)
    nucleus = [row for row, generation in enumerate(generations) if generation.top_p < 1]
    if nucleus:
        probabilities[nucleus] = _nucleus(probabilities[nucleus], [generations[row].top_p for row in nucleus])
    cumulative = probabilities.cumsum(dim=-1)
    draws = torch.tensor([[generation.draw()] for generation in generations], dtype=torch.float64, device=logits.device)
    chosen = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True).squeeze(1)
    return chosen.clamp(max=logits.shape[-1] - 1)


def _nucleus(probabilities: torch.Tensor, top_p: Sequence[float]) -> torch.Tensor:
    """The probabilities with those outside of the nucleus at zero: the likeliest tokens that together reach `top_p`.

    Holtzman et al. 2020, https://arxiv.org/abs/1904.09751. The likeliest token always stays.
    """
    import torch

    limits = torch.tensor(top_p, dtype=torch.float64, device=probabilities.device)[:, None]
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = (before < limits).index_fill(1, torch.zeros(1, dtype=torch.long, device=order.device), True)
    return torch.zeros_like(probabilities).scatter(1, order, ordered * kept)


def _likeliest(logprobs: torch.Tensor, generations: Sequence[Generation]) -> list[list[tuple[int, float]]]:
    most = max((generation.top_logprobs for generation in generations), default=0)
    if not most:
        return [[] for _ in generations]
    likeliest: Any = logprobs.topk(min(most, logprobs.shape[-1]), dim=-1)
    return [
        list(zip(*row, strict=True)) for row in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
    ]
