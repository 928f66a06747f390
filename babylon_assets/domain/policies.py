"""What a policy is to whoever asks it: conversations in, completions out.

The words that the simulated game, the engine and training share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # names are asked for by every command, frames by few: pandas is half of their start
    from babylon_assets.domain.trajectories import Message

#: Between a model's name and a branch's in the name of a branch's chain.
BRANCH = "+"
#: What a person calls step 0 of a chain.
BASE = "base"


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer.

    Attributes:
        text: the answer without its end-of-turn token.
        prompt_token_ids: the conversation as the policy read it, up to where the answer begins.
        token_ids: the sampled tokens, end of turn included when it was sampled.
        logprobs: natural log-probability of each sampled token at temperature 1.
        finish_reason: `stop` when the end of turn was sampled, `length` when the answer was cut.
        call_id: under which whoever answered records it; None where that is left to who asked. Of an answer that is
            recorded elsewhere, the log-probabilities need not be known here.
    """

    text: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as is said: the agent, its trajectory, the step in it, and when that was on the game's clock."""

    agent: str | None = None
    trajectory: str | None = None
    step: int | None = None
    at: datetime | None = None


class Policy(Protocol):
    """Something that answers conversations; `name` is `<chain>@<step>`."""

    @property
    def name(self) -> str: ...

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[Completion]:
        """Answer each conversation; the same seed and conversation give the same answer in any batch."""
        ...


@runtime_checkable
class RecordingPolicy(Protocol):
    """A policy that records its answers itself, and wants to know who asks."""

    @property
    def name(self) -> str: ...

    def ask(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        callers: Sequence[Caller],
        *,
        max_tokens: int,
    ) -> list[Completion]:
        """As `Policy.complete` at temperature 1; every completion has the id of its record."""
        ...


def policy_name(chain: str, step: int) -> str:
    """The name of a policy, such as `babylon-agent@3` or, on a branch, `babylon-agent+2026-11-05T14@3`."""
    return f"{chain}@{step}"


def complete_name(name: str, chain: str) -> str:
    """The whole name of a policy: a person calls a chain's `@3` or `base`; any other name stays as it is."""
    if name == BASE:
        return policy_name(chain, 0)
    return f"{chain}{name}" if name.startswith("@") and name[1:].isdecimal() else name


def policy_step(name: str, model: str) -> int | None:
    """The step in a policy's name when it is one of the model's own, on whichever branch; None for anything else."""
    chain, _, step = name.rpartition("@")
    return int(step) if main_chain(chain) == model and step.isdecimal() and len(step) < 10 else None


def branch_chain(model: str, branch: str) -> str:
    """The name of a branch's chain, such as `babylon-agent+2026-11-05T14`; `+` stands in no model's own name."""
    return f"{model}{BRANCH}{branch}"


def main_chain(chain: str) -> str:
    """The chain that a branch belongs to; a main chain's own name as it is."""
    return chain.partition(BRANCH)[0]
