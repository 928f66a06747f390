"""Policies that answer by a rule, in the game's language: what an evaluation says of them is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import Message


class Scripted:
    """A policy whose answer is a function of the prompt and the seed; it remembers what it was asked."""

    name = "scripted@0"

    def __init__(self, answer: Callable[[str, int], str]) -> None:
        self._answer = answer
        self.asked: list[str] = []
        self.batches: list[int] = []

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[Completion]:
        prompts = [conversation[-1].content for conversation in conversations]
        self.asked += prompts
        self.batches.append(len(prompts))
        return [
            Completion(self._answer(prompt, seed), [], [1], [0.0], "stop")
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]


def news_of(prompt: str) -> tuple[str, str, str]:
    """Source, target and direction of a prompt's news."""
    [line] = [line for line in prompt.splitlines() if line.startswith("news ")]
    source, _, about = line.removeprefix("news ").partition(": ")
    target, _, direction = about.partition(" ")
    return source, target, direction


def follow(prompt: str, _seed: int = 0) -> str:
    """Acts on the news."""
    _, target, direction = news_of(prompt)
    verb = {"yes": "buy_yes", "no": "buy_no", "up": "open_long", "down": "open_short"}[direction]
    return f'{{"action":"{verb}","target":"{target}"}}'


def oppose(prompt: str, _seed: int = 0) -> str:
    """Acts against the news."""
    _, target, direction = news_of(prompt)
    verb = {"yes": "buy_no", "no": "buy_yes", "up": "open_short", "down": "open_long"}[direction]
    return f'{{"action":"{verb}","target":"{target}"}}'


def hold(_prompt: str, _seed: int = 0) -> str:
    """Does nothing."""
    return '{"action":"hold"}'


def babble(_prompt: str, _seed: int = 0) -> str:
    """Answers no order."""
    return "what?"
