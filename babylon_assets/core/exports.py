"""A dataset in forms that others read: ART's JSONL of trajectory groups, and flat rows for a table.

Pure conversion; which file it goes to is decided by the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from babylon_assets.core.datasets import Dataset, Sample


def art_lines(dataset: Dataset) -> Iterator[bytes]:
    """One line per group of samples that are trained on, as `art.utils.trajectory_migration` reads them.

    The answer is a Choice; where its tokens were recorded, each is written `token_id:<n>` with its log-probability.
    """
    trained = (sample for sample in dataset.samples if sample.trains_as != "skip")
    for _, members in groupby(trained, key=lambda sample: sample.group):
        yield msgspec.json.encode({"trajectories": [_trajectory(sample) for sample in members]}) + b"\n"


def table_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """One flat row per sample, skipped ones included; messages and components as JSON text."""
    as_text = ("messages", "components")
    return [
        {
            "dataset_id": dataset.id,
            **{name: getattr(sample, name) for name in Sample.__struct_fields__ if name not in as_text},
            **{name: msgspec.json.encode(getattr(sample, name)).decode() for name in as_text},
        }
        for sample in dataset.samples
    ]


def _trajectory(sample: Sample) -> dict[str, Any]:
    known = {name: value for name, value in sample.components.items() if value is not None}
    about = {
        name: getattr(sample, name) for name in ("sample_id", "window", "agent_id", "group", "policy", "trains_as")
    }
    return {
        "reward": sample.reward,
        "metrics": known | ({} if sample.advantage is None else {"advantage": sample.advantage}),
        "metadata": {name: value for name, value in about.items() if value is not None},
        "messages_and_choices": [*map(msgspec.to_builtins, sample.messages), _choice(sample)],
        "tools": None,
        "additional_histories": [],
        "logs": [],
    }


def _choice(sample: Sample) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "finish_reason": "stop",
        "index": 0,
        "message": {"role": "assistant", "content": sample.response},
    }
    if sample.token_ids is not None and sample.logprobs is not None:
        tokens = zip(sample.token_ids, sample.logprobs, strict=True)
        content = [{"token": f"token_id:{token}", "logprob": each, "top_logprobs": []} for token, each in tokens]
        choice["logprobs"] = {"content": content}
    return choice
