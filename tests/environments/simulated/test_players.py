"""A played window in the game's own tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import SettingsError
from babylon_assets.domain.policies import Completion
from babylon_assets.domain.trajectories import Message, TrajectoryRecord
from babylon_assets.domain.windows import HOURLY
from babylon_assets.environments.babylon import game_record
from babylon_assets.environments.simulated import game_state
from babylon_assets.environments.simulated.players import play_window
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.inference_calls import calls_by_id
from babylon_assets.ledger.windows import get_window

FIRST, SECOND = "2026-11-05T14:00", "2026-11-05T15:00"
AGENTS = 32


class Follower:
    """A policy by rule, for tests of the game itself: it always acts on the news, and every 16th answer is no order."""

    name = "babylon-agent@0"

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked, self._fail_after = 0, fail_after

    def complete(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[Completion]:
        answers = []
        for conversation in conversations:
            self.asked += 1
            if self._fail_after is not None and self.asked > self._fail_after:
                raise RuntimeError("killed")
            text = "no order" if self.asked % 16 == 0 else _follow(conversation[-1].content)
            answers.append(Completion(text, [1, 2], [3, 4], [-0.5, -0.25], "stop"))
        return answers


def _follow(board: str) -> str:
    news = next(line for line in board.splitlines() if line.startswith("news "))
    _, source_name, target, way = news.split()
    action = {"yes": "buy_yes", "no": "buy_no", "up": "open_long", "down": "open_short"}[way]
    return f'{{"note":"{source_name} {target} {way}","action":"{action}","target":"{target}"}}'


@pytest.fixture
def settings() -> Settings:
    return Settings(simulation_seed=3)


def records(database: Database, window: str) -> list[TrajectoryRecord]:
    with database.connect() as conn:
        found = list(game_record.read_window(conn, window, include_test=False, include_banned=False))
    assert all(isinstance(record, TrajectoryRecord) for record in found)
    return [record for record in found if isinstance(record, TrajectoryRecord)]


def test_a_window_is_read_back_as_it_was_played(settings: Settings, game_database: Database) -> None:
    with game_database.connect() as conn:
        played = play_window(settings, conn, FIRST, Follower())
    found = records(game_database, FIRST)
    assert (played.answers, len(found)) == (512, AGENTS)
    assert {record.shape for record in found} == {"full"}
    assert sum(len(record.samples) for record in found) == 512
    facts = [fact for record in found for fact in record.facts]
    assert sum(fact.invalid for fact in facts) == 512 // 16
    assert played.valid == pytest.approx(1 - 1 / 16)
    assert {fact.detail.get("market_type") for fact in facts if not fact.invalid} == {"prediction", "perp"}
    assert len({fact.moment_ms for fact in facts}) == 64


def test_every_answer_is_recorded_under_the_id_that_the_game_keeps(settings: Settings, game_database: Database) -> None:
    with game_database.connect() as conn:
        play_window(settings, conn, FIRST, Follower())
    samples = [sample for record in records(game_database, FIRST) for sample in record.samples]
    with game_database.connect() as conn:
        calls = calls_by_id(conn, [str(sample.call_id) for sample in samples])
    assert len(calls) == 512
    for sample in samples:
        call = calls[str(sample.call_id)]
        assert (call.response, list(call.messages)) == (sample.response, list(sample.messages))
        assert (call.policy, call.policy_step, call.token_ids) == ("babylon-agent@0", 0, [3, 4])


def test_a_window_that_was_interrupted_was_not_played(settings: Settings, game_database: Database) -> None:
    with game_database.connect() as conn, pytest.raises(RuntimeError, match="killed"):
        play_window(settings, conn, FIRST, Follower(fail_after=200))
    with game_database.connect() as conn:
        assert not game_state.is_played(conn, HOURLY.parse(FIRST))
        assert conn.execute('SELECT count(*) FROM public."AgentTrade"').fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM babylon_training.inference_calls").fetchone() == (0,)
        play_window(settings, conn, FIRST, Follower())
        assert game_state.is_played(conn, HOURLY.parse(FIRST))


def test_money_goes_on_from_window_to_window_and_late_markets_resolve(
    settings: Settings, game_database: Database
) -> None:
    with game_database.connect() as conn:
        play_window(settings, conn, FIRST, Follower())
        late = conn.execute('SELECT count(*) FROM public."Market" WHERE NOT "resolved"').fetchone()
        trades = 'public."AgentTrade" t JOIN public."Market" m ON m."id" = t."marketId"'
        locked = f'SELECT coalesce(sum("amount"), 0) FROM {trades}'
        open_stakes = conn.execute(f'{locked} WHERE NOT m."resolved"').fetchone()
        money = conn.execute('SELECT sum("virtualBalance" - "lifetimePnL") FROM public."User"').fetchone()
        conn.commit()
        play_window(settings, conn, SECOND, Follower())
        still_open = conn.execute(
            'SELECT count(*) FROM public."Market" WHERE NOT "resolved" AND "createdAt" < %s', [SECOND.replace("T", " ")]
        ).fetchone()
    assert late and late[0] > 0
    assert still_open == (0,)
    assert money and open_stakes and open_stakes[0] > 0
    assert float(money[0]) == pytest.approx(AGENTS * 10_000 - open_stakes[0], abs=AGENTS * 0.02)


def test_the_reference_policies_are_ordered_and_kept_with_the_window(
    settings: Settings, game_database: Database
) -> None:
    with game_database.connect() as conn:
        reference = play_window(settings, conn, FIRST, Follower()).reference
        row = get_window(conn, FIRST)
    assert reference["random"] < reference["expert"] < reference["oracle"]
    assert row and row.reference == pytest.approx(reference)


def test_the_same_seed_plays_the_same_game(settings: Settings, game_database: Database) -> None:
    with game_database.connect() as conn:
        with conn.transaction(force_rollback=True):
            play_window(settings, conn, FIRST, Follower())
            once = _hashes(conn)
        assert not game_state.is_played(conn, HOURLY.parse(FIRST))
        play_window(settings, conn, FIRST, Follower())
        assert _hashes(conn) == once
    other = settings.replace(simulation_seed=4)
    with game_database.connect() as conn:
        play_window(other, conn, SECOND, Follower())
        assert len(set(once)) == AGENTS
        assert not set(once) & set(_hashes(conn))


def _hashes(conn: Connection[Any]) -> list[str]:
    """What the newest window's rows say, by agent."""
    query = (
        'SELECT md5("stepsJson") FROM public.trajectories '
        'WHERE "windowId" = (SELECT max("windowId") FROM public.trajectories)'
        ' ORDER BY "agentId"'
    )
    return [row[0] for row in conn.execute(query)]


def test_each_room_has_companies_of_its_own(game_database: Database) -> None:
    ten = Settings(simulation_rooms=10, simulation_ticks=2, simulation_agents_per_room=2)
    with game_database.connect() as conn:
        play_window(ten, conn, FIRST, Follower())
        shared = conn.execute(
            'SELECT count(*), count(DISTINCT ("organizationId", "timestamp")) FROM public."StockPrice"'
        ).fetchone()
        assert shared == (2 * 2 * 2 * 10, 2 * 2 * 2 * 10)
        for wide, most in (({}, 10), ({"simulation_style": "game"}, 4)):
            with pytest.raises(SettingsError, match=f"{most} fit. Lower SIMULATION_ROOMS"):
                play_window(ten.replace(simulation_rooms=most + 1, **wide), conn, FIRST, Follower())


def test_boards_that_would_share_a_moment_are_refused(game_database: Database) -> None:
    crowded = Settings(simulation_rooms=8, simulation_ticks=32)
    with game_database.connect() as conn, pytest.raises(SettingsError, match="MOMENT_SECONDS"):
        play_window(crowded, conn, FIRST, Follower())
