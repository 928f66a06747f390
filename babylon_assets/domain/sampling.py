"""How much of a window is trained on, and by whose answers: agents held out, bounds of size, what the rest amounts to.

Everything is decided by hashes, so that the same input and seed leave out the same samples everywhere. What a sample
trains as is decided in `domain.datasets`.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from babylon_assets.domain.samples import Sample, SampleHead

_S = TypeVar("_S", bound="Sample | SampleHead")
HELD_OUT = "held out"
NO_ROOM = "window has more than its bound"
TOO_OLD = "policy is too old"
CONSTRAINED = "sampled under a grammar"


def is_held_out(agent_id: str, share: float) -> bool:
    """Whether an agent is among the share that never enters training; it stays so when the share grows."""
    return hash_draw("held out", agent_id) < share


def held_out_agents(agents: Iterable[str], share: float) -> frozenset[str]:
    """Of a window's agents those that are held out.

    By hash that is `share` of them on the average; of a few agents it may be half. Where the share comes to less than
    one of them, at most one is held out, the one that would be at the smallest share, and none of only two.
    """
    known = sorted(set(agents))
    drawn = sorted((hash_draw("held out", agent), agent) for agent in known if is_held_out(agent, share))
    if share * len(known) < 1:
        drawn = drawn[: 1 if len(known) > 2 else 0]
    return frozenset(agent for _, agent in drawn)


def is_constrained(sampling: Mapping[str, Any] | None) -> bool:
    """Whether of a recorded answer only some tokens could be sampled at each place: training does not know that
    distribution."""
    asked = sampling or {}
    return "response_format" in asked or asked.get("tool_choice", "auto") != "auto"


def bounded(
    samples: list[_S], max_samples: int | None = None, max_tokens: int | None = None, seed: int = 0
) -> list[_S]:
    """The samples, of which so many trained ones that neither bound is passed; the others become `skip`.

    Groups are taken whole, in an order drawn by the seed, because a sample is worth what it is among its group. Only
    where the first is larger than a bound by itself, a part of it is taken.
    """
    most_samples = math.inf if max_samples is None else max_samples
    most_tokens = math.inf if max_tokens is None else max_tokens
    tokens = [sample.tokens for sample in samples if sample.trains_as != "skip"]
    if len(tokens) <= most_samples and sum(tokens) <= most_tokens:
        return samples
    groups: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        if sample.trains_as != "skip":
            groups[sample.group].append(number)
    budget = _Budget(most_samples, most_tokens)
    kept: set[int] = set()
    for group in sorted(groups, key=lambda key: (hash_draw(seed, key), key)):
        members = groups[group]
        if budget.take(len(members), sum(samples[number].tokens for number in members)):
            kept.update(members)
        elif not kept:
            drawn = sorted(members, key=lambda number: hash_draw(seed, samples[number].sample_id))
            kept.update(number for number in drawn if budget.take(1, samples[number].tokens))
    return [
        sample if sample.trains_as == "skip" or number in kept else _leave_out(sample)
        for number, sample in enumerate(samples)
    ]


def effective_samples(samples: Iterable[Sample | SampleHead]) -> float:
    """Kish's effective size of the trained samples, weighted by how far each is from its group: (sum w)^2 / sum w^2.

    A window of 1,000 samples of which ten have all the advantage is worth ten.
    """
    weights = [abs(sample.advantage or 0.0) for sample in samples if sample.trains_as != "skip"]
    squares = math.fsum(weight * weight for weight in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0


def policy_lags(samples: Iterable[Sample | SampleHead], head_step: int) -> list[int]:
    """How many checkpoints behind the head the policy of each trained answer of ours was."""
    return [
        head_step - sample.policy_step
        for sample in samples
        if sample.trains_as != "skip" and sample.policy_step is not None
    ]


class _Budget:
    def __init__(self, samples: float, tokens: float) -> None:
        self._samples, self._tokens = samples, tokens

    def take(self, samples: int, tokens: int) -> bool:
        if samples > self._samples or tokens > self._tokens:
            return False
        self._samples -= samples
        self._tokens -= tokens
        return True


def _leave_out(sample: _S) -> _S:
    return msgspec.structs.replace(sample, trains_as="skip", skip_reason=NO_ROOM)


def hash_draw(*of: object) -> float:
    """A number in [0, 1) that follows from these values alone."""
    digest = hashlib.sha256("\0".join(map(str, of)).encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
