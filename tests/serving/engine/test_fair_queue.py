"""Places in turn over keys: how long one key may hold up another, in places and in steps of the engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.answers import Question, Target
from babylon_assets.serving.engine.batching import Batch
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.engine.fair_queue import FairQueue
from babylon_assets.serving.engine.scheduler import READ_TOKENS, Scheduler


def queue(width: int = 8, length: int = 16, gone: set[str] | None = None) -> FairQueue[str]:
    return FairQueue(width, length, (gone or set()).__contains__)


def take_all(waiting: FairQueue[str]) -> list[str]:
    taken = []
    while (entry := waiting.take()) is not None:
        taken.append(entry[1])
    return taken


def names(key: str, count: int) -> list[str]:
    return [f"{key}{number}" for number in range(count)]


def test_one_key_alone_has_all_places_in_its_order() -> None:
    waiting = queue()
    assert waiting.put("a", names("a", 10))
    assert take_all(waiting) == names("a", 8)
    assert len(waiting) == 2
    waiting.leave("a")
    assert take_all(waiting) == ["a8"]


def test_who_has_nothing_gets_a_place_at_once_however_much_another_has() -> None:
    waiting = queue(length=40)
    assert waiting.put("a", names("a", 20))
    assert len(take_all(waiting)) == 8
    assert waiting.put("b", names("b", 2))
    assert take_all(waiting) == ["b0"]
    waiting.leave("b")
    assert take_all(waiting) == ["b1"]
    for number in range(20):  # however many keys there are, the engine has twice its width at most
        assert waiting.put(f"c{number}", [f"c{number}"])
    assert len(take_all(waiting)) == 7


def test_places_that_come_free_go_to_whoever_has_fewest() -> None:
    waiting = queue(width=4, length=40)
    for key in "ab":
        assert waiting.put(key, names(key, 10))
    assert sorted(take_all(waiting)) == ["a0", "a1", "b0", "b1"]
    for _ in range(3):
        waiting.leave("a")
        assert take_all(waiting)[0][0] == "a"


def test_a_full_queue_has_room_for_whoever_asks_for_less_than_its_share() -> None:
    waiting = queue(width=2, length=8)
    assert waiting.put("a", names("a", 10))
    assert not waiting.put("a", ["a10"])
    assert not waiting.put("b", names("b", 5))
    assert waiting.put("b", names("b", 4))
    assert take_all(waiting)[:2] == ["a0", "b0"]


def test_who_left_takes_no_place() -> None:
    gone = {"a0", "a2", "b0"}
    waiting = queue(width=8, length=4, gone=gone)
    assert waiting.put("a", names("a", 4)) and waiting.put("b", names("b", 1))
    assert take_all(waiting) == ["a1", "a3"]
    assert len(waiting) == 0


def question(key: str, text: str, max_tokens: int) -> Question:
    return Question(
        policy=Target("babylon-agent@0", 0),
        messages=[Message("user", text)],
        seeds=[1],
        max_tokens=max_tokens,
        temperature=0.0,
        top_p=1.0,
        stop=(),
        top_logprobs=None,
        key=key,
    )


@pytest.mark.parametrize("prompt", ["A yes 40", "A yes 40 " * 300], ids=["short prompts", "long prompts"])
def test_a_short_answer_waits_for_a_bounded_number_of_steps(
    tiny_library: Library, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    steps: list[Batch] = []
    marks: dict[str, int] = {}
    put, leave, step = FairQueue.put, FairQueue.leave, Batch.step

    def note_put(self: FairQueue[Any], key: str, entries: Any) -> bool:
        marks[f"{key} asked"] = len(steps)
        return put(self, key, entries)

    def note_leave(self: FairQueue[Any], key: str) -> None:
        marks.setdefault(f"{key} answered", len(steps))
        leave(self, key)

    def count_step(self: Batch, most: int | None = None) -> None:
        steps.append(self)
        step(self, most)

    monkeypatch.setattr(FairQueue, "put", note_put)
    monkeypatch.setattr(FairQueue, "leave", note_leave)
    monkeypatch.setattr(Batch, "step", count_step)

    async def play() -> None:
        scheduler = Scheduler(tiny_library, asyncio.get_running_loop(), width=4, queue=64, threads=1)
        greedy = [asyncio.create_task(scheduler.answers(question("greedy", prompt, 2000))) for _ in range(16)]
        while not scheduler.load()[0]:
            await asyncio.sleep(0.001)
        (answer,) = await scheduler.answers(question("honest", "A yes 40", 8))
        assert answer.completion_tokens == 8
        assert scheduler.load()[0] + scheduler.load()[1] == 16
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)
        scheduler.close()

    asyncio.run(play())
    tokens = len(tiny_library.tokenizer.prompt([Message("user", prompt)]))
    assert marks["honest answered"] - marks["honest asked"] <= 8 + 2 + (READ_TOKENS + tokens) // READ_TOKENS
