"""A dataset in forms that others read: ART's JSONL of trajectory groups, and flat rows for a table.

Pure conversion; which file it goes to is decided by the command.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from typing import Any

import msgspec

from babylon_assets.domain.chat_turns import answer_message, decoded_tools, wire_messages
from babylon_assets.domain.datasets import Dataset, Sample
from babylon_assets.domain.hindsight import Place
from babylon_assets.domain.trajectories import StepFacts

#: The facts of steps by (trajectory id, step): what `environments.files.imports` needs to put samples back where they
#: were.
Facts = Mapping[tuple[str, int], StepFacts]
_NONE: Facts = {}
_ABOUT = ("sample_id", "window", "trajectory_id", "agent_id", "step", "call", "group", "model", "policy", "trains_as")


def art_lines(dataset: Dataset, facts: Facts = _NONE, refused: Collection[Place] = ()) -> Iterator[bytes]:
    """One line per group of samples that were compared, as `art.utils.trajectory_migration` reads them.

    A group is whole: it has the samples that are trained on and those that they were compared with, such as the worse
    half of what is imitated, so that whoever reads it compares the same. The answer is a Choice; where its tokens were
    recorded, each is written `token_id:<n>` with its log-probability. What ART has no place for is in `metadata`, as
    JSON text where it is not a plain value.

    Args:
        refused: answers that the environment refused while it carried out another one of their step.
    """
    compared = (sample for sample in dataset.samples if was_compared(sample))
    for _, members in groupby(compared, key=lambda sample: sample.group):
        lines = [_trajectory(sample, facts, refused) for sample in members]
        yield msgspec.json.encode({"trajectories": lines}) + b"\n"


def was_compared(sample: Sample) -> bool:
    """Whether a sample is trained on, or is one of those that such a sample was compared with."""
    return sample.trains_as != "skip" or (sample.advantage is not None and sample.reward is not None)


def table_rows(dataset: Dataset, facts: Facts = _NONE, refused: Collection[Place] = ()) -> list[dict[str, Any]]:
    """One flat row per sample, skipped ones included; messages, components and the step's facts as JSON text."""
    as_text = ("messages", "components", "tool_calls")
    return [
        {
            "dataset_id": dataset.id,
            **{name: getattr(sample, name) for name in Sample.__struct_fields__ if name not in as_text},
            **{name: msgspec.json.encode(getattr(sample, name)).decode() for name in as_text},
            "facts": _facts(sample, facts),
            "refused": _place(sample) in refused,
        }
        for sample in dataset.samples
    ]


def _place(sample: Sample) -> Place:
    return sample.trajectory_id, sample.step, sample.call


def _facts(sample: Sample, facts: Facts) -> str | None:
    fact = facts.get((sample.trajectory_id, sample.step))
    if fact is None:
        return None
    named = {name: getattr(fact, name) for name in StepFacts.__struct_fields__}
    return msgspec.json.encode(named).decode()


def _trajectory(sample: Sample, facts: Facts, refused: Collection[Place]) -> dict[str, Any]:
    known = {name: value for name, value in sample.components.items() if value is not None}
    about = {name: getattr(sample, name) for name in _ABOUT} | {"facts": _facts(sample, facts)}
    about["skip_reason"] = sample.skip_reason
    about["refused"] = True if _place(sample) in refused else None
    about["components"] = msgspec.json.encode(sample.components).decode()
    if sample.prompt_token_ids is not None:
        about["prompt_token_ids"] = msgspec.json.encode(sample.prompt_token_ids).decode()
    return {
        "reward": sample.reward,
        "metrics": known | ({} if sample.advantage is None else {"advantage": sample.advantage}),
        "metadata": {name: value for name, value in about.items() if value is not None},
        "messages_and_choices": [*wire_messages(sample.messages), _choice(sample)],
        "tools": decoded_tools(sample.tools),
        "additional_histories": [],
        "logs": [],
    }


def _choice(sample: Sample) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "finish_reason": "stop",
        "index": 0,
        "message": wire_messages([answer_message(sample)])[0],
    }
    if sample.token_ids is not None and sample.logprobs is not None:
        tokens = zip(sample.token_ids, sample.logprobs, strict=True)
        content = [{"token": f"token_id:{token}", "logprob": logprob, "top_logprobs": []} for token, logprob in tokens]
        choice["logprobs"] = {"content": content}
    return choice
