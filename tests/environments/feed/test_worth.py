"""What every step of an hour of Feed was worth, against what the game that wrote it knows; what is counted of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.trajectories import TrajectoryRecord
from babylon_assets.environments.feed.environment import FeedEnvironment
from babylon_assets.ledger.database import Database
from tests.environments.feed.game import Feed
from tests.environments.feed.hour import AGENTS, NPCS, WINDOW, at, play_hour
from tests.environments.feed.perps import play_perps
from tests.environments.feed.random_hour import draw_hour
from tests.environments.feed.tables import create_feed_tables

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def hour() -> Feed:
    return play_hour()


@pytest.fixture
def conn(feed_database: Database) -> Iterator[Connection]:
    with feed_database.connect() as connection:
        yield connection


@pytest.fixture
def environment() -> FeedEnvironment:
    return FeedEnvironment(Settings())


def records(environment: FeedEnvironment, conn: Connection) -> list[TrajectoryRecord]:
    return [row for row in environment.read_window(conn, WINDOW) if isinstance(row, TrajectoryRecord)]


def value(environment: FeedEnvironment, conn: Connection, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    steps = steps_frame(records(environment, conn), environment.detail)
    return steps, environment.value_steps(conn, WINDOW, steps, **options)


def wrong(hour: Feed, steps: pd.DataFrame, valued: pd.DataFrame) -> list[str]:
    """Each step whose state or worth, within 1e-9, is not what it is in truth."""
    faults = []
    for name, step, kind, worth, state in zip(
        steps["trajectory_id"], steps["step"], steps["action_type"], valued["worth"], valued["state"], strict=True
    ):
        true, true_state = hour.truth[name, step]
        same = np.isnan(worth) if true is None else abs(worth - true) <= 1e-9
        if not same or state != true_state:
            faults.append(f"{name}/{step} {kind}: {worth} {state}, in truth {true} {true_state}")
    return faults


def test_every_worth_is_right(hour: Feed, environment: FeedEnvironment, conn: Connection) -> None:
    steps, valued = value(environment, conn)
    assert set(zip(steps["trajectory_id"], steps["step"], strict=True)) == hour.truth.keys()
    assert wrong(hour, steps, valued) == []
    assert (valued["state"] == "final").sum() >= 14


@pytest.mark.parametrize(("seed", "pnl_after_fee"), [(1, False), (2, False), (3, True)])
def test_every_worth_of_an_hour_at_random_is_right(
    environment: FeedEnvironment, database: Database, seed: int, pnl_after_fee: bool
) -> None:
    hour = draw_hour(seed, pnl_after_fee=pnl_after_fee)
    with database.connect() as connection:
        create_feed_tables(connection)
        hour.write(connection)
        steps, valued = value(environment, connection)
    assert len(steps) == len(hour.truth) >= 250
    assert wrong(hour, steps, valued) == []
    assert valued["word"].isna().all() and (valued["linked"].dropna() == True).all()  # noqa: E712


def test_npcs_are_read_and_say_that_they_are(environment: FeedEnvironment, conn: Connection) -> None:
    read = records(environment, conn)
    assert {record.agent_id for record in read} == {*AGENTS, *NPCS}
    money = [
        (record.final_pnl, fact.detail.get("balance"))
        for record in read
        if record.agent_id in NPCS
        for fact in record.facts
    ]
    assert set(money) == {(None, None)}  # the zeros that the game writes for them are no balance
    [npc] = {record.attributes.get("npc_role") for record in read if record.attributes.get("npc") == "true"} - {None}
    assert npc == "insider"
    user = next(record for record in read if record.agent_id == "31001")
    expected = {"archetype": "trader", "scenario_profile": "calm", "team": "red", "alignment": "evil"}
    assert expected.items() <= user.attributes.items() and "npc" not in user.attributes


def test_an_outcome_that_is_not_known_yet_is_pending(
    hour: Feed, environment: FeedEnvironment, conn: Connection
) -> None:
    steps, early = value(environment, conn, as_of=at(62))
    bets = (steps["market_id"] == "41001") & (early["state"] != "invalid")
    assert set(early["state"][bets]) == {"pending"}
    assert set(early["state"][steps["market_id"] == "41002"]) == {"final", "unknown"}
    _, later = value(environment, conn, as_of=at(1000))
    assert wrong(hour, steps, later) == []


def test_answers_that_were_refused_are_known(environment: FeedEnvironment, conn: Connection) -> None:
    samples = [sample for record in records(environment, conn) for sample in record.samples]
    refused = [sample.response for sample in samples if sample.refused]
    assert sorted(refused) == sorted(["I wait", "<think>x</think>{}", "no", "json", ""])


@pytest.mark.parametrize(("hours", "others"), [(9, False), (-3.5, False), (9, True), (-4, True)])
def test_a_game_whose_session_is_in_another_time_zone_is_read_rightly(
    environment: FeedEnvironment, database: Database, hours: float, others: bool
) -> None:
    """What `now()` fills follows the session's zone, not the times that the game writes; of two columns it is open."""
    ahead, feed = timedelta(hours=hours), play_perps()
    shifted = [("AgentTrade", "executedAt"), ("PredictionPriceHistory", "createdAt")]
    shifted += [("StockPrice", "timestamp"), ("PerpPosition", "openedAt")] if others else []
    with database.connect() as conn:
        create_feed_tables(conn)
        feed.write(conn)
        before = environment.fingerprint(conn, WINDOW, [])
        conn.execute("""UPDATE public.trajectories SET "createdAt" = "endTime" + %s + interval '80 ms'""", [ahead])
        for table, column in shifted:
            conn.execute(f"""UPDATE public."{table}" SET "{column}" = "{column}" + %s""".encode(), [ahead])
        assert wrong(feed, *value(environment, conn)) == []
        seen = environment.fingerprint(conn, WINDOW, [])
        conn.execute("""DELETE FROM public."StockPrice" WHERE id = (SELECT max(id) FROM public."StockPrice")""")
        assert len({before, seen, environment.fingerprint(conn, WINDOW, [])}) == 3


@pytest.mark.parametrize(
    ("attack", "changed"),
    [
        ("""UPDATE public."AgentTrade" SET price = 0 WHERE "marketType" = 'prediction'""", "prediction"),
        ("""UPDATE public."AgentTrade" SET price = 40 WHERE "marketType" = 'prediction'""", "prediction"),
        ("""UPDATE public."AgentTrade" SET amount = -1e9""", "prediction perp"),
        ("""UPDATE public."AgentTrade" SET amount = 'NaN'""", "prediction perp"),
        ("""UPDATE public."AgentTrade" SET price = 1e9 WHERE action = 'close' AND "marketType" = 'perp'""", "close"),
    ],
)
def test_a_trade_whose_record_is_made_up_earns_nothing(
    environment: FeedEnvironment, conn: Connection, attack: str, changed: str
) -> None:
    steps, before = value(environment, conn)
    conn.execute(attack.encode())
    _, after = value(environment, conn)
    closes = steps["closes"].notna() & (steps["market_type"] == "perp")
    attacked = closes if changed == "close" else steps["market_type"].isin(changed.split())
    attacked &= before["linked"] == True  # noqa: E712
    assert attacked.any() and not (after["state"][attacked] == "final").any()


def test_an_entry_that_no_quote_knows_does_not_count(
    hour: Feed, environment: FeedEnvironment, conn: Connection
) -> None:
    conn.execute("""UPDATE public."PerpPosition" SET "entryPrice" = 0.01 WHERE "closedAt" IS NULL""")
    assert wrong(hour, *value(environment, conn)) == []


def test_a_trade_is_of_one_step(environment: FeedEnvironment, conn: Connection) -> None:
    row = conn.execute("""SELECT "stepsJson" FROM public.trajectories WHERE "trajectoryId" = 't-00013'""").fetchone()
    assert row is not None
    first = json.loads(row[0])[0]
    steps_json = json.dumps([{**first, "stepNumber": number} for number in range(20)])
    conn.execute("""UPDATE public.trajectories SET "stepsJson" = %s WHERE "trajectoryId" = 't-00013'""", [steps_json])
    steps, valued = value(environment, conn)
    assert (valued["state"][steps["trajectory_id"] == "t-00013"] == "final").sum() == 1


def test_the_role_of_the_docs_is_enough(hour: Feed, environment: FeedEnvironment, conn: Connection) -> None:
    text = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
    [grants] = re.findall(r"<!-- feed role -->\n```sql\n(.*?)```", text, flags=re.DOTALL)
    conn.execute("CREATE ROLE babylon_training")
    conn.execute(grants.encode())
    conn.execute("SET LOCAL ROLE babylon_training")
    environment.check(conn)
    assert environment.schema(conn).losses() == []
    assert environment.list_windows(conn)[0].window == WINDOW
    assert environment.presence(conn, [WINDOW])[0].rows == len(hour.rows["trajectories"])
    assert environment.fingerprint(conn, WINDOW, ["41001", "ACME"])
    assert environment.count_left_out(conn, WINDOW) == {}
    assert wrong(hour, *value(environment, conn)) == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("DELETE FROM public.trajectories")
    conn.rollback()
