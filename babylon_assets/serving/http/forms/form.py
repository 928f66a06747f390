"""What a protocol is to the gateway: how a request is read, and how answers and errors are written.

Whatever the protocol, a request becomes a `ChatRequest`, so that it is asked, counted and recorded in one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from babylon_assets.serving.answers import Answer, Piece
from babylon_assets.serving.http.protocol import ApiError, ChatRequest


@dataclass(frozen=True, slots=True)
class ReplyContext:
    """What an answer repeats of its question.

    Attributes:
        id: of the first answer's record.
        created: epoch seconds of the question.
        model: name of the policy that answers.
        count: how many answers were asked for.
    """

    request: ChatRequest
    id: str
    created: int
    model: str
    count: int


class StreamWriter(Protocol):
    """Writes the events of one streamed reply."""

    def begin(self) -> Iterable[bytes]:
        """What stands before the first piece."""
        ...

    def write(self, piece: Piece) -> Iterable[bytes]:
        """A piece; with the last one of an answer, its end."""
        ...

    def end(self, answers: Sequence[Answer]) -> Iterable[bytes]:
        """What stands after the last piece, given all answers that ended."""
        ...

    def fail(self, error: ApiError) -> Iterable[bytes]:
        """The end of a reply that failed on the way."""
        ...


class WireForm(Protocol):
    """A protocol.

    Attributes:
        prefix: of the ids of its replies.
    """

    prefix: str

    def read(self, body: bytes) -> ChatRequest:
        """A request out of its body. Raises ApiError: 400 with the field that is at fault."""
        ...

    def reply(self, context: ReplyContext, answers: Sequence[Answer]) -> bytes:
        """The body that answers a request which is not streamed."""
        ...

    def stream(self, context: ReplyContext) -> StreamWriter:
        """What writes a streamed reply."""
        ...

    def error(self, error: ApiError) -> bytes:
        """The body of a refusal."""
        ...
