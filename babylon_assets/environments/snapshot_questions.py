"""What a recorded game in a file asks a policy, in the game's own form: how it becomes evidence of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from babylon_assets.domain.trajectories import Message, StepFacts


class SnapshotQuestion(NamedTuple):
    """A prompt made of one moment of a snapshot.

    Attributes:
        id: of the prompt, the same whoever is asked.
        cluster: what its answers are resampled with, because the same markets decide them.
        step: the situation, as `AnswerReader.parse` takes it.
        tick: the place of the moment among the snapshot's.
    """

    id: str
    cluster: str
    messages: list[Message]
    step: StepFacts
    tick: int


class SnapshotReader(Protocol):
    """Makes questions of snapshots, and values what was answered by what is known to have come of them."""

    version: str

    def decode(self, content: bytes) -> Any:
        """A snapshot from a file's content.

        Raises:
            PermanentError: the content is no snapshot.
        """
        ...

    def questions(self, snapshot: Any) -> Sequence[SnapshotQuestion]: ...
    def value(self, snapshot: Any, question: SnapshotQuestion, step: StepFacts) -> tuple[float | None, bool]:
        """The worth of an answered action in [-1, 1], None where nothing is known of it, and whether it is possible."""
        ...
