"""The texts of a step's calls as columns, for scorers that look at what was written."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd
from msgspec.structs import replace

from babylon_assets.domain.chat_turns import answer_message, shown_text
from babylon_assets.domain.joining import JoinedSample
from babylon_assets.domain.rewards import Scorer
from babylon_assets.domain.trajectories import RawSample

#: What a step has no call for is None.
TEXT_COLUMNS = ("prompt", "answer", "reasoning")
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def needs_texts(scorer: Scorer) -> bool:
    """Whether a scorer asks for `TEXT_COLUMNS`."""
    return bool(getattr(scorer, "texts", False))


def add_texts(steps: pd.DataFrame, samples: Iterable[JoinedSample]) -> pd.DataFrame:
    """The steps with `TEXT_COLUMNS`: the prompt and the answer of the step's last call, and what it thought.

    A prompt is its messages' texts, one after the other, separated by an empty line. The reasoning is what stands
    between `<think>` and `</think>` in the answer, and the answer is what remains.
    """
    texts: dict[tuple[str, int], tuple[str, str, str | None]] = {}
    for sample in samples:
        if isinstance(sample.raw, RawSample):
            answered = shown_text(answer_message(replace(sample.raw, reasoning=None)))
            thoughts = [*filter(None, [sample.raw.reasoning]), *_THOUGHT.findall(answered)]
            prompt = "\n\n".join(map(shown_text, sample.raw.messages))
            answer = _THOUGHT.sub("", answered).strip()
            texts[sample.record.trajectory_id, sample.raw.step] = prompt, answer, "\n".join(thoughts).strip() or None
    keys = zip(steps["trajectory_id"], steps["step"], strict=True)
    rows = [texts.get(key, (None, None, None)) for key in keys]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(TEXT_COLUMNS)}
    return steps.assign(
        **{name: pd.Series(values, index=steps.index, dtype=object) for name, values in columns.items()}
    )
