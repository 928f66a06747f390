"""A day of Feed through the gateway, by the game's own client: no ids, answers asked again, a clock that is off.

Every call that the record determines is joined, none to another's step, and what the record leaves open is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.joining import JoinedWindow, join_calls, named_calls
from babylon_assets.ledger import trajectories
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import InferenceCall, calls_of
from babylon_assets.orchestration.resources import Installation
from babylon_assets.serving.engine.engine import Library
from babylon_assets.serving.http import gateway as gateway_module
from tests.environments.feed.game import Feed, Step, call
from tests.environments.feed.tables import create_feed_tables
from tests.feed_client import FeedClient
from tests.gateways import RunningGateway, embedded
from tests.servers import Server

DAY = datetime(2026, 7, 15, tzinfo=UTC)
#: By how much the gateway's clock is ahead of the game's.
AHEAD = timedelta(seconds=40)
AGENTS = ("anna", "bob", "cleo")
#: Every so many answers one is lost on its way, and asked for again.
LOST_EVERY = 50

#: A step's trajectory, its number, and which of its calls.
Place = tuple[str, int, int]


@dataclass
class Clock:
    """The game's time; the gateway's is ahead of it."""

    time: datetime = DAY

    def now(self, _zone: Any = None) -> datetime:
        return self.time + AHEAD

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class LosingClient(FeedClient):
    """The game's client over a network that loses every fiftieth answer."""

    answers = 0
    lost: bool = False

    def _fetch(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        fetched = super()._fetch(method, url, body)
        self.answers += 1
        if self.answers % LOST_EVERY == 0 and not self.lost:
            self.lost = True
            raise ConnectionResetError("the answer is lost")
        self.lost = False
        return fetched


@dataclass
class Play:
    """The day as it is played, and what is true of it.

    Attributes:
        asked: when the gateway took the last question of each place, by its own clock.
        open: the places whose calls the record leaves open.
    """

    client: LosingClient
    clock: Clock
    hours: list[Feed] = field(default_factory=list)
    asked: dict[Place, datetime] = field(default_factory=dict)
    open: set[Place] = field(default_factory=set)

    def hour(self, number: int) -> Feed:
        feed = Feed(DAY + timedelta(hours=number), count=1000 * number)
        if not self.hours:
            for agent in AGENTS:
                feed.user(agent)
        self.hours.append(feed)
        return feed

    def ask(self, prompt: str, system: str) -> dict[str, Any]:
        """A call as the game records it, with the time of its last try."""
        self.clock.sleep(0.1)
        answer = self.client.ask(prompt, system, temperature=0.0, max_tokens=1000)
        return {**call(answer, prompt, systemPrompt=system, temperature=0), "asked": self.clock.now()}

    def tick(self, feed: Feed, agent: str, minute: float, prompts: list[list[str]], system: str = "") -> list[Place]:
        """One tick: a step for each list of prompts, of which all but the last were refused."""
        self.clock.time = max(self.clock.time, feed.start + timedelta(minutes=minute))
        steps = []
        for several in prompts:
            calls = [self.ask(prompt, system or f"You are {agent}.") for prompt in several]
            action = {"actionType": "POST", "parameters": {"content": "hi"}, "success": True, "result": {}}
            steps.append(Step(self.clock.time, action, (None, "no_trade"), calls))
            self.clock.sleep(1)
        times = [[made.pop("asked") for made in step.calls] for step in steps]
        name = feed.tick(agent, steps)
        places = [(name, step, place) for step, row in enumerate(times) for place in range(len(row))]
        self.asked |= dict(zip(places, [time for row in times for time in row], strict=True))
        return places


def play_day(play: Play) -> None:
    for number in range(24):
        feed = play.hour(number)
        for at, agent in enumerate(AGENTS):
            own = f"Step 1/12, balance {950 + at}, hour {number}"
            play.tick(feed, agent, 5 + at, [[own], [f"{own}, 2/12", f"{own}, 2/12 again"]])
            play.tick(feed, agent, 20 + at, [["Nothing has changed."]])  # the same question every hour
        if number % 6 == 0:  # three ask the same in the same second: only a different system tells one of them apart
            for agent in AGENTS:
                system = "All are alike." if agent != "cleo" else ""
                places = play.tick(feed, agent, 40, [[f"Is anybody there at {number}?"]], system)
                play.open |= set(places) if agent != "cleo" else set()


@pytest.fixture
def game(server: Server, migrated: str) -> Iterator[Database]:
    name = server.create(migrated)
    database = server.database(name)
    with database.connect() as conn:
        create_feed_tables(conn)
    yield database
    server.drop(name)


def joined(game: Database, feed: Feed) -> tuple[JoinedWindow, dict[str, InferenceCall]]:
    """The window of an hour, read out of the game's tables and joined to what the gateway recorded."""
    installation = Installation(Settings(environment="feed", database_url=game.url), game)
    window = f"{feed.start:%Y-%m-%dT%H}:00"
    with installation.connect() as conn, installation.source_of(conn) as source:
        rows = list(installation.environment.read_window(source, window))
        trajectories.replace_rows(conn, window, rows)
        records = trajectories.read_window(conn, window)
        calls = calls_of(conn, window, named_calls(records))
    return join_calls(records, calls), calls


def test_every_call_that_the_record_determines_is_joined_and_none_wrongly(
    game: Database, tiny_library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(gateway_module, "datetime", clock)
    settings = Settings(home=tmp_path / "home", gateway_answer_tokens=4)
    with RunningGateway(settings, game, embedded(tiny_library, settings)) as gateway:
        client = LosingClient(gateway.root, sleep=clock.sleep)
        play = Play(client, clock)
        play_day(play)
        recorder = gateway.parts.recorder
        assert recorder is not None and recorder.flush(30)
        recorded = recorder.written
    retried = recorded - len(play.asked)
    assert retried == client.answers // LOST_EVERY >= 4
    with game.connect() as conn:
        for feed in play.hours:
            feed.write(conn)

    counts: Counter[str] = Counter()
    found: dict[Place, datetime] = {}
    for feed in play.hours:
        window, calls = joined(game, feed)
        assert all(call.agent_id is None and call.trajectory_id is None for call in calls.values())
        counts.update(window.counts)
        for record, raw, kept in window.samples:
            if kept is not None:
                assert kept.received_at is not None
                found[record.trajectory_id, raw.step, raw.call] = kept.received_at
    determined = {place: at for place, at in play.asked.items() if place not in play.open}
    assert found == determined
    assert counts["calls_joined"] == len(determined)
    # Two callers without a name who ask and are answered the same look like one who asked again: one of each pair.
    assert len(play.open) == 8
    assert (counts["calls_ambiguous"], counts["calls_repeated"]) == (4, retried + 4)
    others = {name: count for name, count in counts.items() if count}
    assert set(others) == {"calls_joined", "calls_ambiguous", "calls_repeated"}
