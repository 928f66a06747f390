"""Prompts that agents were given, found in the datasets of the windows that they belong to, and their texts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Connection

from babylon_assets.domain.dataset_codec import with_texts
from babylon_assets.domain.prompt_evaluation import PromptPlace
from babylon_assets.domain.sampling import HELD_OUT
from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.ledger import datasets, trajectories

#: The executed call of each step, which is its last; refused attempts come before it.
_PLACES: LiteralString = f"""
SELECT DISTINCT ON (sample.trajectory_id, sample.step)
    played.dataset_id, played.window_id, sample.trajectory_id, sample.agent_id, sample.step, sample.call,
    coalesce(sample.skip_reason = '{HELD_OUT}', false),
    scored.step_worth[array_position(scored.steps, sample.step)]
FROM babylon_training.windows AS played
JOIN babylon_training.training_dataset_samples AS sample USING (dataset_id)
JOIN babylon_training.raw_trajectories AS read
    ON read.window_id = played.window_id AND read.trajectory_id = sample.trajectory_id
JOIN babylon_training.training_datasets AS dataset ON dataset.id = played.dataset_id AND dataset.body <> ''
LEFT JOIN babylon_training.trajectory_scores AS scored
    ON scored.window_id = played.window_id AND scored.trajectory_id = sample.trajectory_id
    AND scored.scorer = 'reward' AND scored.retired IS NULL
WHERE played.window_id = ANY(%s)
ORDER BY sample.trajectory_id, sample.step, sample.call DESC"""
_WINDOWS: LiteralString = """
SELECT window_id FROM babylon_training.windows
WHERE window_id <= %s AND dataset_id IS NOT NULL ORDER BY window_id DESC LIMIT %s"""


@dataclass(frozen=True, slots=True)
class RecordedPrompt:
    """A prompt with what the environment says of the step that it was given for."""

    place: PromptPlace
    messages: list[Message]
    facts: StepFacts


def list_prompts(conn: Connection[Any], until: str, windows: int) -> list[PromptPlace]:
    """The prompts of the newest `windows` windows that have a dataset, none later than `until`.

    Prompts of agents that are trained on are of the windows before `until` alone.
    """
    names = [name for (name,) in conn.execute(_WINDOWS, [until, windows])]
    places = [
        PromptPlace(
            dataset_id=dataset,
            window=window,
            trajectory_id=trajectory,
            agent_id=agent,
            step=step,
            call=call,
            held_out=held_out,
            recorded_worth=None if worth is None or math.isnan(worth) else worth,
        )
        for dataset, window, trajectory, agent, step, call, held_out, worth in conn.execute(_PLACES, [names])
    ]
    return [place for place in places if place.held_out or place.window < until]


def read_prompts(conn: Connection[Any], places: Sequence[PromptPlace]) -> list[RecordedPrompt]:
    """The prompts at these places, in their order; one whose step is not kept any more is left out.

    Raises:
        CorruptLedger: when a text or a step cannot be decoded.
    """
    facts = dict(_facts(conn, places))
    texts = dict(_texts(conn, places))
    return [
        RecordedPrompt(place, texts[place.id], facts[place.id])
        for place in places
        if place.id in facts and place.id in texts
    ]


def _facts(conn: Connection[Any], places: Sequence[PromptPlace]) -> Iterable[tuple[str, StepFacts]]:
    for window, members in _by(places, "window").items():
        kept = trajectories.read_facts(conn, window, sorted({place.trajectory_id for place in members}))
        for place in members:
            if (fact := kept.get((place.trajectory_id, place.step))) is not None:
                yield place.id, fact


def _texts(conn: Connection[Any], places: Sequence[PromptPlace]) -> Iterable[tuple[str, list[Message]]]:
    for dataset, members in _by(places, "dataset_id").items():
        named = {place.trajectory_id for place in members}
        heads = [head for head in datasets.load_heads(conn, dataset) if head.trajectory_id in named]
        chats = dict(datasets.stream_chats(conn, dataset, *sorted(named)))
        for sample in with_texts(heads, chats.__getitem__):
            if sample.tools is None:  # what an answer with tools does is not read from its text
                yield sample.sample_id, sample.messages


def _by(places: Iterable[PromptPlace], name: str) -> dict[str, list[PromptPlace]]:
    grouped: dict[str, list[PromptPlace]] = defaultdict(list)
    for place in places:
        grouped[getattr(place, name)].append(place)
    return grouped
