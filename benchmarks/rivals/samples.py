"""Samples as the rivals' processes are given them: tokens, log-probabilities and rewards, by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from babylon_assets.domain.samples import Sample


class RecordedSample(msgspec.Struct, frozen=True):
    """One answer: token ids, the answer's log-probabilities (natural, at temperature 1), and its reward."""

    prompt_token_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    reward: float

    @property
    def tokens(self) -> int:
        """Of prompt and answer."""
        return len(self.prompt_token_ids) + len(self.token_ids)


def write_samples(path: Path, groups: Sequence[Sequence[RecordedSample]]) -> None:
    """Write groups of samples as JSON."""
    path.write_bytes(msgspec.json.encode(groups))


def read_samples(path: Path) -> list[list[RecordedSample]]:
    """Read what `write_samples` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=list[list[RecordedSample]])


def dataset_samples(groups: Sequence[Sequence[RecordedSample]]) -> Iterator[Sample]:
    """The same as samples of a dataset, which policy gradient takes."""
    for number, group in enumerate(groups):
        for seat, sample in enumerate(group):
            yield Sample(
                sample_id=f"{number}-{seat}/0/0",
                window="2026-10-01T00:00",
                trajectory_id=f"{number}-{seat}",
                agent_id=str(seat),
                step=0,
                call=0,
                group=str(number),
                messages=[],
                response="",
                model="babylon-agent",
                policy="babylon-agent@0",
                policy_step=0,
                prompt_token_ids=sample.prompt_token_ids,
                token_ids=sample.token_ids,
                logprobs=sample.logprobs,
                reward=sample.reward,
                components={},
                advantage=None,
                trains_as="policy_gradient",
                skip_reason=None,
                tokens=len(sample.token_ids),
            )
