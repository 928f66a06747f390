"""A checkpoint on its environment's own recorded prompts: asked, read as the environment would, valued by its record.

Prompts are those of held-out agents in the newest windows, and of other agents in the windows before the checkpoint's.
Price impact is ignored: an answer's action is valued as if it had moved no price.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.display_text import neutralize, shorten
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.policies import Policy
from babylon_assets.domain.prompt_evaluation import PromptAnswer, PromptPlace, choose_prompts, clustered, clusters
from babylon_assets.domain.rewards import OutcomeScorer
from babylon_assets.domain.trajectories import Message, StepFacts
from babylon_assets.environments.base import Connection, Environment
from babylon_assets.environments.registry import open_environment
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.evaluations import Evaluation
from babylon_assets.ledger.recorded_prompts import RecordedPrompt, list_prompts, read_prompts
from babylon_assets.serving.engine.texts import ChatTokenizer
from babylon_assets.training.capacity import context_of
from babylon_assets.training.families import find_config

NAME = "recorded_prompts"
#: How many windows back prompts are taken from.
WINDOWS = 24
#: Longest answer in tokens; a longer one is cut, as the environment's own client cuts it.
ANSWER_TOKENS = 512
#: Characters of prompts that a policy is given at a time: what bounds the memory of a batch.
BATCH_CHARACTERS = 100_000
#: Prompts after which a listener is told, at least.
LEAST_HEARD = 8
Heard = Callable[[int, int], None]
#: Characters of an answer that its evaluation keeps.
LONGEST_KEPT = 600


@dataclass(frozen=True, slots=True)
class AnsweredStep:
    """An answered step as an episode of its own: what the environment's frame of steps is made of."""

    window: str
    trajectory_id: str
    agent_id: str
    facts: list[StepFacts]


class AnsweredPrompt(NamedTuple):
    """What an answer came to, the action that it asks for, and its text."""

    answer: PromptAnswer
    action: str
    text: str


def prompts_for(settings: Settings, conn: Connection, window: str) -> list[PromptPlace]:
    """The prompts that a window's checkpoint is asked, and whatever it is compared with."""
    return choose_prompts(list_prompts(conn, window, WINDOWS), settings.gate.evaluation_prompts)


def version(settings: Settings, environment: Environment, places: Sequence[PromptPlace]) -> str:
    """What decides the numbers, as a name: the very prompts, and the rules by which answers are read and valued."""
    rules = environment.answers.version if environment.answers else ""
    decided = [rules, settings.rewards.invalid_action_reward, ANSWER_TOKENS, sorted(place.id for place in places)]
    return f"1-{content_id(decided)[:16]}"


def ask(
    settings: Settings,
    database: Database,
    base_model: str,
    policy: Policy,
    places: Sequence[PromptPlace],
    heard: Heard | None = None,
) -> dict[str, AnsweredPrompt]:
    """Ask a policy the prompts, one answer each, and value what it would have done; by the prompts' ids.

    A prompt that the base model's context has no room for is left out.

    Args:
        heard: called after each part of the prompts with how many are answered, of how many.
    """
    environment = open_environment(settings)
    with database.connect() as conn:
        prompts = _fitting(base_model, read_prompts(conn, places))
    texts = answer_texts(policy, [(prompt.place.id, prompt.messages) for prompt in prompts], heard)
    with database.connect_source() as source:
        return value_answers(settings, source, environment, prompts, texts)


def value_answers(
    settings: Settings,
    source: Connection,
    environment: Environment,
    prompts: Sequence[RecordedPrompt],
    texts: Sequence[str],
) -> dict[str, AnsweredPrompt]:
    """What an answer to each prompt would have done, and been worth; by the prompts' ids.

    The environment can read answers: `environment.answers` was asked before.
    """
    reader = environment.answers
    assert reader is not None
    steps = [
        msgspec.structs.replace(reader.parse(text, prompt.messages, prompt.facts), step=number)
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    rewards = _rewards(settings, source, environment, prompts, steps)
    environment.look_up_names(source, steps)
    return {
        prompt.place.id: AnsweredPrompt(
            PromptAnswer(prompt.place.agent_id, prompt.place.window, rewards.get(number), not step.invalid),
            environment.describe_action(step),
            text,
        )
        for number, (prompt, step, text) in enumerate(zip(prompts, steps, texts, strict=True))
    }


def _fitting(base_model: str, prompts: Sequence[RecordedPrompt]) -> list[RecordedPrompt]:
    """The prompts that a base model can read with room for an answer; all of them where its config is elsewhere."""
    context, config = context_of(base_model), find_config(base_model)
    if config is None or context is None:
        return list(prompts)
    tokenizer = ChatTokenizer(config.parent)
    return [prompt for prompt in prompts if len(tokenizer.prompt(prompt.messages)) + ANSWER_TOKENS <= context]


def answer_texts(policy: Policy, prompts: Sequence[tuple[str, list[Message]]], heard: Heard | None = None) -> list[str]:
    """One answer to each prompt, given with its id; the same prompt gets the same random numbers whoever answers.

    Args:
        heard: as of `ask`; where somebody listens, a batch is an eighth of the prompts at most.
    """
    texts: list[str] = []
    most = len(prompts) if heard is None else max(LEAST_HEARD, -(-len(prompts) // 8))
    for batch in _batches([messages for _, messages in prompts], most):
        named = prompts[len(texts) : len(texts) + len(batch)]
        seeds = [int(content_id(name)[:8], 16) for name, _ in named]
        texts += [answer.text for answer in policy.complete(batch, seeds, max_tokens=ANSWER_TOKENS)]
        if heard is not None:
            heard(len(texts), len(prompts))
    return texts


def _batches(conversations: Iterable[list[Message]], most: int) -> Iterator[list[list[Message]]]:
    batch: list[list[Message]] = []
    size = 0
    for messages in conversations:
        length = sum(len(message.content) for message in messages)
        if batch and (size + length > BATCH_CHARACTERS or len(batch) == most):
            yield batch
            batch, size = [], 0
        batch.append(messages)
        size += length
    if batch:
        yield batch


def _rewards(
    settings: Settings,
    source: Connection,
    environment: Environment,
    prompts: Sequence[RecordedPrompt],
    steps: Sequence[StepFacts],
) -> dict[int, float]:
    """The reward of each answered step whose worth the record says, by its number."""
    assert environment.answers is not None
    by_window: dict[str, list[AnsweredStep]] = defaultdict(list)
    for prompt, step in zip(prompts, steps, strict=True):
        place = prompt.place
        by_window[place.window].append(AnsweredStep(place.window, place.trajectory_id, place.agent_id, [step]))
    rewards: dict[int, float] = {}
    for window, episodes in by_window.items():
        frame = steps_frame(episodes, environment.detail)
        worth = environment.answers.value(source, window, frame)
        scored = _outcome(settings, frame.assign(worth=worth["worth"], state=worth["state"]))
        rewards |= {int(number): float(value) for number, value in zip(frame["step"], scored, strict=True)}
    return {number: value for number, value in rewards.items() if value == value}


def _outcome(settings: Settings, valued: pd.DataFrame) -> pd.Series[Any]:
    return OutcomeScorer(settings.rewards.invalid_action_reward).score(valued)


def evaluation_of(
    checkpoint: Checkpoint,
    version: str,
    answered: Mapping[str, AnsweredPrompt],
    places: Sequence[PromptPlace],
    evaluation: str = NAME,
) -> Evaluation:
    """What is kept of a checkpoint's answers: each one's reward, action and text, and the mean with its interval."""
    answers = {name: prompt.answer for name, prompt in answered.items()}
    valued = {name: answer for name, answer in answers.items() if answer.reward is not None}
    mean = clustered([answer.reward or 0.0 for answer in valued.values()], clusters(list(valued.values())))
    recorded = {place.id: place.recorded_worth for place in places if place.recorded_worth is not None}
    shared = sorted(set(valued) & set(recorded))
    gain = clustered(
        [(valued[name].reward or 0.0) - recorded[name] for name in shared], clusters([valued[name] for name in shared])
    )
    return Evaluation(
        checkpoint_id=checkpoint.id,
        evaluation=evaluation,
        version=version,
        window_id=max((place.window for place in places), default=None),
        value=mean.value if mean else None,
        low=mean.low if mean else None,
        high=mean.high if mean else None,
        results={
            "answers": {name: list(answer) for name, answer in sorted(answers.items())},
            "texts": {name: _kept_text(prompt) for name, prompt in sorted(answered.items())},
            "valid_share": sum(answer.valid for answer in answers.values()) / len(answers) if answers else None,
            "gain_on_recorded": list(gain) if gain else None,
            "prompts": len(places),
            "held_out": sum(place.held_out for place in places),
        },
    )


def _kept_text(prompt: AnsweredPrompt) -> list[str]:
    """Action and text of an answer, as long as a page shows them."""
    return [neutralize(shorten(text, LONGEST_KEPT)) for text in (prompt.action, prompt.text)]


def answers_of(evaluation: Evaluation | None) -> dict[str, PromptAnswer]:
    """The answers that an evaluation keeps, by the prompts' ids."""
    kept = evaluation.results["answers"] if evaluation is not None else {}
    return {name: PromptAnswer(*values) for name, values in kept.items()}
