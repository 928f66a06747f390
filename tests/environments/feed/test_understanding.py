"""An hour of Feed on its way to a dataset: what is counted of it, and that a word which nobody knows stops it."""

from __future__ import annotations

from collections import Counter

import dagster as dg
import pytest

from babylon_assets.cli.list_scores import score_rows
from babylon_assets.cli.list_windows import window_json
from babylon_assets.config.settings import Settings
from babylon_assets.definitions import build_definitions
from babylon_assets.domain.errors import PermanentError
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.datasets import load_dataset
from babylon_assets.ledger.windows import get_window
from babylon_assets.orchestration import checks
from babylon_assets.orchestration.assets import raw_trajectories, scored_trajectories
from babylon_assets.orchestration.freezing import freeze_window
from babylon_assets.orchestration.resources import Installation
from babylon_assets.orchestration.runtime import Line, WindowResult
from tests.environments.feed.hour import WINDOW, play_hour


@pytest.fixture
def installation(feed_database: Database) -> Installation:
    return Installation(Settings(environment="feed", min_agents_per_window=1, held_out_share=0.0), feed_database)


def score(installation: Installation) -> WindowResult:
    raw_trajectories.read(installation, WINDOW)
    return scored_trajectories.score(installation, WINDOW)


def check(result: WindowResult) -> dg.AssetCheckResult:
    return next(entry for entry in result.checks if entry.check_name == checks.UNDERSTOOD)


def shown(result: WindowResult) -> dict[str, object]:
    return {name: value.value for name, value in result.metadata.items() if isinstance(value, dg.MetadataValue)}


def test_what_was_understood_is_counted(installation: Installation) -> None:
    with installation.connect() as conn:
        conn.execute("""UPDATE public.trajectories SET "isEvaluation" = true WHERE "trajectoryId" = 't-00095'""")
        conn.execute("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"hi"', '"h\\ud83d"')""")
    read = shown(raw_trajectories.read(installation, WINDOW))
    assert (read["npcs"], read["rows_left_out"], read["dropped"]) == (2, "evaluation: 1", "cut characters: 1")
    result = scored_trajectories.score(installation, WINDOW)
    counts = shown(result)
    expected = {"understood_share": 1.0, "trades": 19, "trades_linked": 18, "trades_valued": 16, "trades_pending": 2}
    assert {name: counts[name] for name in expected} == expected
    assert check(result).passed and "unknown_words" not in counts
    with installation.connect() as conn:
        row = get_window(conn, WINDOW)
        assert row is not None and (row.understood, row.unknown_words) == (1.0, None)
        kept = row.understanding or {}
        assert {
            "trades": 19,
            "linked": 18,
            "valued": 16,
            "pending": 2,
            "left out: evaluation": 1,
        }.items() <= kept.items()
        renamed = """UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"perp"', '"swap"')"""
        conn.execute(f"""{renamed}, "updatedAt" = now()""".encode())
    score(installation)
    with installation.connect() as conn:
        row = get_window(conn, WINDOW)
        assert row is not None and row.understood is not None and row.understood < 1
        assert (row.unknown_words or "").startswith("marketType swap (")
        assert window_json(row, {})["understood"] == row.understood


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            """UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"perp"', '"swap"')""",
            "marketType swap",
        ),
        (
            """UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"TRADE"', '"DEAL"')""",
            "actionType DEAL",
        ),
        ("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", 'open_long', 'go_up')""", "side go_up"),
        (
            """UPDATE public."AgentTrade" SET "marketType" = 'swap' WHERE "marketType" = 'perp'""",
            "AgentTrade.marketType swap",
        ),
        ("""UPDATE public."AgentTrade" SET action = 'enter' WHERE action = 'open'""", "AgentTrade.action enter"),
        ("""UPDATE public."AgentTrade" SET side = 'up' WHERE side = 'long'""", "AgentTrade.side up"),
    ],
)
def test_a_word_that_was_renamed_stops_the_window_by_its_name(
    installation: Installation, change: str, word: str
) -> None:
    with installation.connect() as conn:
        conn.execute(change.encode())
    result = score(installation)
    assert checks.UNDERSTOOD in checks.BLOCKING
    assert not check(result).passed and check(result).severity is dg.AssetCheckSeverity.ERROR
    assert word in str(check(result).description) and word in str(shown(result)["unknown_words"])
    with installation.connect() as conn:
        zero = conn.execute(
            """SELECT count(*) FROM babylon_training.trajectory_scores, unnest(step_worth) AS worth
            WHERE scorer = 'reward' AND retired IS NULL AND worth = 0"""
        ).fetchone()
    assert zero is not None and zero[0] <= 1  # the bet on the market that was cancelled


def test_trades_that_the_record_lacks_are_a_warning(installation: Installation) -> None:
    with installation.connect() as conn:
        conn.execute("""UPDATE public."AgentTrade" SET "executedAt" = "executedAt" + interval '9 hours'""")
    result = check(score(installation))
    assert not result.passed and result.severity is dg.AssetCheckSeverity.WARN
    assert "19 of 19 trades are not in the environment's own record" in str(result.description)


def test_a_lower_bound_lets_it_pass(installation: Installation) -> None:
    with installation.connect() as conn:
        conn.execute("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"POST"', '"DANCE"')""")
    result = score(installation)
    assert check(result).passed and "actionType DANCE (1)" in str(check(result).description)
    strict = Installation(installation.settings.replace(least_understood=1.0), installation.database)
    assert not check(scored_trajectories.score(strict, WINDOW)).passed


def test_the_dataset_credits_the_answer_that_was_carried_out(installation: Installation) -> None:
    score(installation)
    draft, _ = freeze_window(installation, WINDOW)
    with installation.connect() as conn:
        dataset = load_dataset(conn, draft.id)
    assert dataset is not None
    by_answer = {sample.response: sample for sample in dataset.samples}
    assert by_answer["I wait"].components["outcome"] == -0.5
    assert by_answer['{"action":"TRADE"}'].components["outcome"] == -0.5
    assert {by_answer[text].components["outcome"] for text in ("no", "json", "")} == {-0.5}
    skipped = Counter(sample.skip_reason for sample in dataset.samples)
    assert skipped["outcome cannot be known"] == 2


def test_a_window_of_test_users_alone_says_so(installation: Installation) -> None:
    with installation.connect() as conn:
        conn.execute("""UPDATE public."User" SET "isTest" = true""")
        conn.execute("""DELETE FROM public.trajectories WHERE "agentId" NOT IN (SELECT id FROM public."User")""")
    score(installation)
    _, row = freeze_window(installation, WINDOW)
    assert row.status == "thin"
    assert row.reason is not None and row.reason.startswith(
        "0 agents, MIN_AGENTS_PER_WINDOW is 1; not read: test users: "
    )


def test_a_row_per_step_says_what_it_was_worth_and_why(installation: Installation) -> None:
    score(installation)
    freeze_window(installation, WINDOW)
    with installation.connect() as conn:
        rows = list(score_rows(installation.settings, conn, WINDOW))
    hour = play_hour()
    assert {(row["trajectory"], row["step"]) for row in rows} == hour.truth.keys()
    for row in rows:
        worth, state = hour.truth[row["trajectory"], row["step"]]
        assert row["state"] == state and row["worth"] == pytest.approx(worth, abs=1e-9)
    assert any('"?"' in row["action"] for row in rows)  # the question of the game's markets
    closed = next(row for row in rows if row["action"].startswith("TRADE short ACME 0"))
    assert (closed["kind"], closed["entry"], closed["exit"], closed["call"]) == ("trade", 104.0, 90.0, None)
    refused = next(row for row in rows if row["call"] == 1 and row["state"] == "invalid")
    assert (refused["trains_as"], refused["parts"]["outcome"]) == ("skip", -0.5)
    assert {row["attributes"]["archetype"] for row in rows} == {"trader"}
    compared = [row for row in rows if row["advantage"] is not None]
    assert all(row["reward"] == pytest.approx(row["baseline"] + row["advantage"]) for row in compared)


def test_the_line_stops_at_a_window_that_it_does_not_understand(installation: Installation) -> None:
    with installation.connect() as conn:
        conn.execute("""UPDATE public.trajectories SET "stepsJson" = replace("stepsJson", '"perp"', '"swap"')""")
    settings = installation.settings.replace(window_start="2026-07-15T00:00")
    definitions = build_definitions(settings, installation=Installation(settings, installation.database))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(PermanentError, match=r"the check understood .* marketType swap \(7\)"),
    ):
        Line(definitions, instance).materialize(WINDOW)
    with installation.connect() as conn:
        row = get_window(conn, WINDOW)
    assert row is not None and (row.status, row.dataset_id) == ("failed", None)
    assert row.reason is not None and "marketType swap" in row.reason
