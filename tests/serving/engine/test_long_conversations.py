"""What long conversations take in memory is bounded, and no key waits for another's to end."""

from __future__ import annotations

import asyncio

import pytest

from babylon_assets.serving.engine.batching import Batch, Generation
from babylon_assets.serving.engine.decoder import Cache
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.engine.long_conversations import LongConversations
from babylon_assets.serving.engine.scheduler import Scheduler
from tests.serving.engine.test_fair_queue import question

#: Tokens of a long answer.
LONG = 600


def test_a_cache_takes_what_it_says_it_will(tiny_library: Library) -> None:
    cache = Cache(tiny_library.weights(None))
    assert cache.bytes_with(0, 0) == 0
    for rows, length in ((1, 100), (3, 90), (2, 700), (9, 10), (9, 10)):
        said = cache.bytes_with(rows, length)
        cache.fit(rows, length)
        assert said == sum(tensor.nbytes for tensor in (*cache.keys, *cache.values)) == cache.bytes_with(0, 0)


def test_one_long_conversation_takes_a_row_of_its_own_length(tiny_library: Library) -> None:
    weights = tiny_library.weights(None)
    batch = Batch(weights, tiny_library.tokenizer.text)
    said = batch.cache_bytes([LONG])
    batch.admit([Generation(list(range(10, 50)), 0, LONG - 40)])
    assert said == batch.cache_bytes([]) == Cache(weights).bytes_with(1, LONG + 1)


def test_as_many_begin_as_have_room_and_the_first_of_each_key(tiny_library: Library) -> None:
    weights = tiny_library.weights(None)
    long = LongConversations([], Cache(weights).bytes_with(4, LONG), [])
    for _ in range(4):
        assert long.has_room(weights, LONG, "a")
        long.begin(weights, LONG, "a")
    assert not long.has_room(weights, LONG, "a")
    assert long.has_room(weights, LONG, "b")
    long.begin(weights, LONG, "b")
    assert not long.has_room(weights, LONG, "b")


def test_those_of_other_policies_count(tiny_library: Library) -> None:
    weights = tiny_library.weights(None)
    other = Batch(Library(tiny_library.base).weights(None), tiny_library.tokenizer.text)
    other.admit([Generation(list(range(10, 50)), seed, LONG) for seed in range(4)])
    most = Cache(weights).bytes_with(4, LONG)
    assert LongConversations([], most, ["a"]).has_room(weights, LONG, "a")
    assert not LongConversations([other], most, ["a"]).has_room(weights, LONG, "a")


@pytest.mark.parametrize("room", [1, 4])
def test_further_ones_wait_and_all_are_answered(
    tiny_library: Library, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    most = Cache(tiny_library.weights(None)).bytes_with(room, LONG)
    seen: list[tuple[int, int]] = []
    step = Batch.step

    def note_step(self: Batch, *, one_portion: bool = False) -> None:
        if one_portion:
            seen.append((len(self), self.cache_bytes([])))
        step(self, one_portion=one_portion)

    monkeypatch.setattr(Batch, "step", note_step)

    async def play() -> list[int]:
        scheduler = Scheduler(tiny_library, asyncio.get_running_loop(), width=16, queue=64, threads=1, cache_bytes=most)
        greedy = [asyncio.create_task(scheduler.answers(question("greedy", "A yes 40", LONG))) for _ in range(9)]
        while not scheduler.load()[1]:
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*greedy)
        scheduler.close()
        return [answer.completion_tokens for (answer,) in answers]

    assert set(asyncio.run(play())) == {LONG}
    assert max(count for count, _ in seen) == room
    assert max(taken for _, taken in seen) <= most


def test_a_key_begins_one_while_another_key_has_all_the_room(tiny_library: Library) -> None:
    async def play() -> None:
        scheduler = Scheduler(tiny_library, asyncio.get_running_loop(), width=16, queue=64, threads=1, cache_bytes=1)
        greedy = [asyncio.create_task(scheduler.answers(question("greedy", "A yes 40", 2000))) for _ in range(4)]
        while scheduler.load() != (1, 3):
            await asyncio.sleep(0.001)
        await scheduler.answers(question("honest", "A yes 40", LONG))
        assert not any(task.done() for task in greedy)
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)
        scheduler.close()

    asyncio.run(play())
