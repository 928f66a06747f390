"""Places in turn over keys: how long one key may hold up another, in places and in steps of the engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.domain.trajectories import Message
from babylon_assets.serving.answers import Question, Target
from babylon_assets.serving.engine.batching import LEAST_READ, PREFILL_TOKENS, PREFILL_WORK, Batch, Generation
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.engine.fair_queue import HEAD_START, FairQueue, KeyTurns, Turns
from babylon_assets.serving.engine.scheduler import Scheduler
from babylon_assets.training.adapters import weights_sha256
from tests.serving.engine.test_engine import adapter_in


def queue(width: int = 8, length: int = 16, gone: set[str] | None = None) -> FairQueue[str]:
    return FairQueue(width, length, (gone or set()).__contains__)


def take_all(waiting: FairQueue[str]) -> list[str]:
    taken = []
    while (entry := waiting.take(lambda _entry: True)) is not None:
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


def test_who_cannot_begin_holds_up_nobody_else() -> None:
    waiting = queue()
    assert waiting.put("a", names("a", 2)) and waiting.put("b", names("b", 2))
    may_begin = {"b0", "b1"}.__contains__
    assert [waiting.take(may_begin), waiting.take(may_begin)] == [("b", "b0"), ("b", "b1")]
    assert waiting.take(may_begin) is None
    assert take_all(waiting) == ["a0", "a1"]


def test_turns_take_the_same_time_though_one_is_much_longer() -> None:
    turns: Turns[str] = Turns()
    costs, had = {"long": 0.5, "short": 0.01}, {"long": 0.0, "short": 0.0}
    for _ in range(1000):
        chosen = turns.next(list(costs))
        turns.spend(chosen, costs[chosen])
        had[chosen] += costs[chosen]
    assert abs(had["long"] - had["short"]) <= 0.5


def test_who_comes_now_and_then_waits_for_one_turn_at_most() -> None:
    turns: Turns[str] = Turns()
    for _ in range(20):
        for _ in range(5):  # the long one alone
            turns.spend(turns.next(["long"]), 0.5)
        for _ in range(5):
            assert turns.next(["long", "short"]) == "short"
            turns.spend("short", HEAD_START / 5)
    for _ in range(5):  # and saves nothing up
        turns.spend(turns.next(["long"]), 0.5)
    chosen = []
    for _ in range(10):
        chosen.append(turns.next(["long", "short"]))
        turns.spend(chosen[-1], 0.5)
    assert chosen.count("long") >= 4


def test_a_key_has_as_much_time_as_another_that_has_answers_in_every_batch() -> None:
    turns: KeyTurns[str] = KeyTurns()
    for batch, key, answers in (("short", "honest", 1), ("short", "greedy", 3), ("long", "greedy", 4)):
        for _ in range(answers):
            turns.enter(batch, key)
    had = {"short": 0.0, "long": 0.0}
    for _ in range(2000):
        batch = turns.next(list(had))
        seconds = {"short": 0.001, "long": 0.02}[batch]
        turns.spend(batch, seconds)
        had[batch] += seconds
    assert had["long"] <= 0.02  # of the short ones' time the greedy has three quarters already
    for _ in range(3):
        turns.leave("short", "greedy")
    before = dict(had)
    for _ in range(20_000):
        batch = turns.next(list(had))
        seconds = {"short": 0.001, "long": 0.02}[batch]
        turns.spend(batch, seconds)
        had[batch] += seconds
    assert had["short"] - before["short"] > 5
    assert abs((had["short"] - before["short"]) - (had["long"] - before["long"])) < 2


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


@pytest.mark.parametrize(
    ("prompt", "length"),
    [("A yes 40", 400), ("A yes 40", 2000), ("A yes 40 " * 300, 2000)],
    ids=["short ones", "long answers", "long prompts"],
)
def test_a_short_answer_waits_for_a_bounded_number_of_steps(
    tiny_library: Library, monkeypatch: pytest.MonkeyPatch, prompt: str, length: int
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

    def count_step(self: Batch, *, one_portion: bool = False) -> None:
        steps.append(self)
        step(self, one_portion=one_portion)

    monkeypatch.setattr(FairQueue, "put", note_put)
    monkeypatch.setattr(FairQueue, "leave", note_leave)
    monkeypatch.setattr(Batch, "step", count_step)

    async def play() -> None:
        scheduler = Scheduler(tiny_library, asyncio.get_running_loop(), width=4, queue=64, threads=1)
        greedy = [asyncio.create_task(scheduler.answers(question("greedy", prompt, length))) for _ in range(16)]
        while sum(scheduler.load()) < 16 or not scheduler.load()[0]:
            await asyncio.sleep(0.001)
        (answer,) = await scheduler.answers(question("honest", "A yes 40", 8))
        assert answer.completion_tokens == 8
        assert "greedy answered" not in marks
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)
        scheduler.close()

    asyncio.run(play())
    taken = steps[marks["honest asked"] : marks["honest answered"]]
    own = taken[-1]  # the batch that gave the last token
    assert taken.count(own) <= 8 + 2


def test_a_prompt_is_read_in_parts_of_bounded_work(tiny_library: Library) -> None:
    batch = Batch(tiny_library.weights(None), tiny_library.tokenizer.text)
    batch.admit([Generation(list(range(10, 370)) * 20, 0, 10)])
    parts = [(segment.start, len(segment.tokens)) for _, segment in batch._unread]
    assert sum(length for _, length in parts) == 7200
    assert parts[0] == (0, PREFILL_TOKENS)
    assert all(length == LEAST_READ or (start + length) * length <= PREFILL_WORK for start, length in parts[:-1])


def test_a_step_of_long_conversations_reads_or_samples(tiny_library: Library) -> None:
    batch = Batch(tiny_library.weights(None), tiny_library.tokenizer.text)
    others = [Generation(list(range(10, 20)), seed, 60) for seed in range(16)]
    batch.admit(others)
    batch.step()
    batch.admit([Generation(list(range(10, 370)) * 4, 0, 10)])
    seen = [(batch.unread, 0)]
    while batch.unread:
        batch.step(one_portion=True)
        seen.append((batch.unread, sum(len(other.token_ids) for other in others)))
    changed = [(before[0] != now[0], before[1] != now[1]) for before, now in pairwise(seen)]
    assert changed[:4] == [(False, True), (True, False)] * 2


def test_a_policy_that_nobody_asks_any_more_leaves_no_cache(tiny_base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "0001"
    adapter_in(adapter, tiny_base)
    other = Target("babylon-agent@1", 1, path=str(adapter), weights_sha256=weights_sha256(adapter))

    async def play() -> list[int]:
        scheduler = Scheduler(Library(tiny_base), asyncio.get_running_loop(), width=4, queue=64, threads=1)
        await scheduler.answers(question("a", "A yes 40", 4))
        short_and_long = [question("a", "A yes 40", 4), question("a", "A yes 40", 900)]
        await asyncio.gather(*(scheduler.answers(replace(asked, policy=other)) for asked in short_and_long))
        scheduler.close()
        return [weights for weights, _ in scheduler._batches]

    assert len(set(asyncio.run(play()))) == 1
