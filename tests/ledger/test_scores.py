"""Scores are kept in revisions: unchanged ones are not written, changed ones stand beside those of before."""

from __future__ import annotations

from typing import Any

import pandas as pd
import psycopg

from babylon_assets.domain.datasets import scores_by_step
from babylon_assets.ledger import lineage
from babylon_assets.ledger.scores import IMPORTED, ScorerNote, read_scores, read_step_scores, replace_scores, revisions
from tests.ledger.values import LATER, WINDOW, scores

Conn = psycopg.Connection[Any]
VERSIONS = {"outcome": "1", "heuristic": "1"}
ROWS = (
    "SELECT trajectory_id, scorer, revision, retired, xmin::text FROM babylon_training.trajectory_scores "
    "ORDER BY 1, 2, 3"
)


def resolved() -> pd.DataFrame:
    """As `scores`, when the outcome of the pending step is known."""
    known = scores()
    known.loc[2, ["worth", "outcome", "reward"]] = [0.25, 0.25, 0.3]
    known.loc[2, "state"], known.loc[2, "final"] = "final", True
    return known


def test_the_same_scores_again_write_nothing(conn: Conn) -> None:
    first = replace_scores(conn, WINDOW, scores(), VERSIONS)
    conn.commit()
    before = conn.execute(ROWS).fetchall()
    again = replace_scores(conn, WINDOW, scores().iloc[::-1].iloc[::-1], VERSIONS)
    assert (first.revision, first.trajectories) == (1, 2)
    assert (again.revision, again.trajectories, again.scorers) == (1, 0, ())
    assert conn.execute(ROWS).fetchall() == before


def test_a_dataset_is_given_the_scores_that_a_person_reads(conn: Conn) -> None:
    replace_scores(conn, WINDOW, scores(), VERSIONS)
    replace_scores(conn, WINDOW, resolved(), VERSIONS)
    given = read_step_scores(conn, WINDOW)
    assert given == scores_by_step(read_scores(conn, WINDOW))
    assert len(given) == 3 and all(set(components) == set(VERSIONS) for _, _, components in given.values())
    assert read_step_scores(conn, "2020-01-01T00:00") == {}


def test_a_late_outcome_makes_a_revision_and_the_old_one_can_be_read(conn: Conn) -> None:
    replace_scores(conn, WINDOW, scores(), VERSIONS)
    old = read_scores(conn, WINDOW)
    changed = replace_scores(conn, WINDOW, resolved(), VERSIONS)
    assert (changed.revision, changed.trajectories, changed.scorers) == (2, 1, ("heuristic", "outcome", "reward"))
    pd.testing.assert_frame_equal(read_scores(conn, WINDOW, 1), old)
    pd.testing.assert_frame_equal(read_scores(conn, WINDOW, 2), read_scores(conn, WINDOW))
    assert read_scores(conn, WINDOW)["reward"].tolist() == [-0.475, 0.35, 0.3]
    shown = conn.execute(
        "SELECT score FROM babylon_training.ruler_scores WHERE scoring_method = 'outcome@1' ORDER BY 1"
    )
    assert shown.fetchall() == [(-0.5,), ((0.1 + 0.2 + 0.25) / 2,)]


def test_every_revision_says_what_changed(conn: Conn) -> None:
    replace_scores(conn, WINDOW, scores(), VERSIONS)
    replace_scores(conn, WINDOW, scores(), {**VERSIONS, "outcome": "2"})
    replace_scores(conn, WINDOW, scores().iloc[:0], VERSIONS)
    replace_scores(conn, LATER, scores().assign(window=LATER), VERSIONS)
    told = [(each.revision, each.trajectories, each.scorers) for each in revisions(conn, WINDOW)]
    assert told == [
        (1, 2, ("heuristic", "outcome", "reward")),
        (2, 2, ("outcome", "reward")),
        (3, 2, ("heuristic", "outcome", "reward")),
    ]
    assert [len(read_scores(conn, WINDOW, number)) for number in (0, 1, 2, 3)] == [0, 3, 3, 0]
    assert replace_scores(conn, WINDOW, scores(), VERSIONS).revision == 4


def test_a_forgotten_agent_is_in_no_revision(conn: Conn) -> None:
    replace_scores(conn, WINDOW, scores(), VERSIONS)
    replace_scores(conn, WINDOW, resolved(), VERSIONS)
    assert lineage.forget_agent(conn, "a1")["scores"] == 6
    for revision in (1, 2):
        assert set(read_scores(conn, WINDOW, revision)["agent_id"]) == {"a0"}


def test_what_a_scorer_said_is_kept_and_is_part_of_what_changes(conn: Conn) -> None:
    note = ScorerNote("bought on a rumour", {"model": "openai/judge", "cost_usd": 0.01})
    replace_scores(conn, WINDOW, scores(), VERSIONS, notes={("outcome", "t1"): note})
    kept = conn.execute(
        "SELECT reasoning, metrics FROM babylon_training.ruler_scores WHERE trajectory_id = 't1' "
        "AND scoring_method = 'outcome@1'"
    )
    assert kept.fetchall() == [tuple(note)]
    other = replace_scores(conn, WINDOW, scores(), VERSIONS, notes={("outcome", "t1"): ScorerNote("no rumour", None)})
    assert (other.revision, other.scorers) == (2, ("outcome",))


def test_scores_that_came_with_a_trajectory_say_so(conn: Conn) -> None:
    replace_scores(conn, WINDOW, scores(), VERSIONS, imported={"t1"})
    rows = conn.execute("SELECT DISTINCT trajectory_id, scorer_version FROM babylon_training.trajectory_scores")
    versions = {trajectory: version for trajectory, version in rows if version != "heuristic@1,outcome@1"}
    assert versions == {"t0": "1", "t1": IMPORTED}
