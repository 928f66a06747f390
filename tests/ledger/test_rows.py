"""What is kept of a window comes back exactly, once, and as a whole."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from msgspec import structs
from psycopg import errors

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.datasets import build_dataset, draft_dataset, scores_by_step
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.domain.frames import steps_frame
from babylon_assets.domain.samples import DatasetDraft
from babylon_assets.domain.sampling import TOO_OLD
from babylon_assets.domain.trajectories import (
    Exchange,
    Message,
    Quarantined,
    RawSample,
    ToolCall,
    TrajectoryRecord,
    encode_chat,
)
from babylon_assets.environments.babylon.details import DETAIL
from babylon_assets.ledger import compression, datasets, inference_calls, late_samples, trajectories, windows
from babylon_assets.ledger.database import Database
from babylon_assets.ledger.forgotten_agents import without_forgotten
from babylon_assets.ledger.lineage import forget_agent
from tests.ledger.values import (
    CHAIN,
    LATER,
    LATEST,
    PROMPT,
    START,
    WINDOW,
    dataset,
    inference_call,
    quarantined,
    record,
    sample,
    scores,
)

Conn = psycopg.Connection[Any]


def test_records_come_back_as_they_were(conn: Conn) -> None:
    records = [record(1, scenario_id="s", samples=[], facts=[]), record(0)]
    bad = [quarantined(1), quarantined(0), quarantined(0, reason="no step")]
    trajectories.replace_window(conn, WINDOW, iter(records), iter(bad))
    assert trajectories.read_window(conn, WINDOW) == records[::-1]
    assert trajectories.quarantined(conn, WINDOW) == [bad[2], bad[1], bad[0]]
    assert trajectories.read_window(conn, LATER) == []


ODD = "\u0000 \u2028 \ud7ff\ue000 \U0010ffff \\ \" 'x' %s {} \x7f"


def test_text_of_every_kind_survives(conn: Conn) -> None:
    kept = record(samples=[RawSample(0, 0, None, "m", None, 2**53, [], ODD)])
    trajectories.replace_window(conn, WINDOW, [kept], [])
    assert trajectories.read_window(conn, WINDOW) == [kept]


def test_replacing_leaves_nothing_of_before_and_other_windows_alone(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [record(0), record(1)], [quarantined(0)])
    trajectories.replace_window(conn, LATER, [record(0, window=LATER)], [])
    trajectories.replace_window(conn, WINDOW, [record(2)], [])
    assert [row.trajectory_id for row in trajectories.read_window(conn, WINDOW)] == ["t2"]
    assert trajectories.quarantined(conn, WINDOW) == []
    assert [row.trajectory_id for row in trajectories.read_window(conn, LATER)] == ["t0"]


def test_one_row_is_quarantined_once_for_a_reason(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [], [quarantined(place="a"), quarantined(place="b")])
    assert [row.place for row in trajectories.quarantined(conn, WINDOW)] == ["a"]


def test_a_failure_in_the_middle_keeps_what_was_there(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [record(0)], [])
    conn.commit()
    with pytest.raises(errors.UniqueViolation):
        trajectories.replace_window(conn, WINDOW, [record(1), record(1)], [])
    assert [row.trajectory_id for row in trajectories.read_window(conn, WINDOW)] == ["t0"]


def test_a_body_that_cannot_be_decoded_names_its_row_and_the_remedy(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [record(0)], [])
    conn.execute("UPDATE babylon_training.raw_trajectories SET body = 'rubbish'")
    with pytest.raises(CorruptLedger, match=rf"t0 of {WINDOW}.*materialize raw_trajectories"):
        trajectories.read_window(conn, WINDOW)


def test_many_replacing_one_window_at_once_yield_one_result(database: Database) -> None:
    def replace_with(version: int) -> None:
        with database.connect() as conn:
            versions = [record(n, content_hash=str(version)) for n in range(50)]
            trajectories.replace_window(conn, WINDOW, versions, [quarantined(row_hash=str(version))])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(replace_with, range(12)))
    with database.connect() as conn:
        kept = trajectories.read_window(conn, WINDOW)
        assert len(kept) == 50
        assert {row.content_hash for row in kept} == {row.row_hash for row in trajectories.quarantined(conn, WINDOW)}


def test_readers_never_see_a_part_of_a_window(database: Database) -> None:
    stop, seen = threading.Event(), set[tuple[int, int]]()

    def read() -> None:
        with database.connect_autocommit() as conn:
            while not stop.is_set():
                kept = trajectories.read_window(conn, WINDOW)
                seen.add((len(kept), len({row.content_hash for row in kept})))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        with database.connect() as conn:
            for version in range(20):
                records = [record(n, content_hash=str(version)) for n in range(40)]
                trajectories.replace_window(conn, WINDOW, records, [])
                conn.commit()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert seen <= {(0, 0), (40, 1)}
    assert (40, 1) in seen


def test_a_window_that_is_written_while_its_agent_is_forgotten_is_without_it(database: Database) -> None:
    with ThreadPoolExecutor(1) as threads:
        with database.connect() as writing:
            rows = list(without_forgotten(writing, [record(0), record(1)]))

            def forget() -> None:
                with database.connect() as conn:
                    forget_agent(conn, "a0")

            forgetting = threads.submit(forget)
            with contextlib.suppress(TimeoutError):
                forgetting.result(0.3)
            trajectories.replace_rows(writing, WINDOW, rows)
        forgetting.result(20)
    with database.connect() as conn:
        assert [row.agent_id for row in trajectories.read_window(conn, WINDOW)] == ["a1"]


def test_steps_are_read_without_texts(conn: Conn) -> None:
    rows = [record(1), record(0)]
    trajectories.replace_window(conn, WINDOW, rows, [])
    kept = trajectories.read_steps(conn, WINDOW, DETAIL)
    pd.testing.assert_frame_equal(kept, steps_frame(trajectories.read_window(conn, WINDOW), DETAIL))
    conn.execute("UPDATE babylon_training.raw_trajectories SET chat = 'rubbish'")
    assert len(trajectories.read_steps(conn, WINDOW, DETAIL)) == 4
    conn.execute("UPDATE babylon_training.raw_trajectories SET body = substr(body, 1, length(body) - 1)")
    with pytest.raises(CorruptLedger, match=r"t0 of .* cannot be decoded"):
        trajectories.read_steps(conn, WINDOW, DETAIL)


def test_texts_are_fetched_when_someone_looks_at_them(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [record(0), record(1, samples=[])], [])
    [first, second] = trajectories.read_heads(conn, WINDOW)
    assert [first, second] == trajectories.read_window(conn, WINDOW)
    assert trajectories.chat_hashes(conn, WINDOW).keys() == {"t0"}
    conn.execute("UPDATE babylon_training.raw_trajectories SET chat = 'rubbish'")
    assert (len(first.samples), len(second.samples)) == (1, 0)
    with pytest.raises(CorruptLedger, match=r"t0 of .*not compressed with zstd"):
        list(first.samples)


def test_what_is_kept_of_a_window_is_counted(conn: Conn) -> None:
    rows: list[TrajectoryRecord | Quarantined]
    rows = [record(0), quarantined(0), record(1, agent_id="a0", samples=[]), quarantined(1)]
    trajectories.replace_rows(conn, WINDOW, iter(rows))
    assert trajectories.summary(conn, WINDOW) == (2, 1, 4, 1, 2)
    assert trajectories.summary(conn, LATER) == (0, 0, 0, 0, 0)


def test_what_the_steps_of_a_window_name_is_known(conn: Conn) -> None:
    rows = [record(0, references=["m1"]), record(1), record(2, references=["ACME", "m1"])]
    trajectories.replace_rows(conn, WINDOW, rows)
    assert trajectories.references(conn, WINDOW) == ["ACME", "m1"]
    assert trajectories.references(conn, LATER) == []


def test_raw_frame_has_a_row_per_trajectory(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [record(0), record(1)], [])
    frame = trajectories.raw_frame(conn, WINDOW)
    assert frame["trajectory_id"].tolist() == ["t0", "t1"]
    assert frame["steps"].tolist() == [2, 2]
    assert frame["samples"].tolist() == [1, 1]
    assert list(trajectories.raw_frame(conn, LATER).columns) == list(frame.columns)


def test_scores_come_back_ordered_with_unknown_as_nan(conn: Conn) -> None:
    given = scores()
    trajectories.replace_scores(conn, WINDOW, given, {"outcome": "1", "heuristic": "2"})
    kept = trajectories.read_scores(conn, WINDOW)
    wanted = given.iloc[[1, 0, 2]].reset_index(drop=True)
    columns = [
        "window",
        "trajectory_id",
        "agent_id",
        "step",
        "state",
        "worth",
        "heuristic",
        "outcome",
        "reward",
        "final",
    ]
    assert list(kept.columns) == columns
    pd.testing.assert_frame_equal(kept, wanted[columns], check_dtype=False)
    assert kept.dtypes[["step", "worth", "outcome", "final"]].tolist() == [np.int64, np.float64, np.float64, np.bool_]


def test_a_score_that_is_not_known_is_missing_and_never_zero(conn: Conn) -> None:
    given = scores()
    given.loc[given["trajectory_id"] == "t0", ["outcome", "reward"]] = float("nan")
    trajectories.replace_scores(conn, WINDOW, given, {"outcome": "1", "heuristic": "2"})
    rows = conn.execute(
        "SELECT trajectory_id, score, final, scorer_version FROM babylon_training.trajectory_scores "
        "WHERE scorer = 'reward' ORDER BY 1"
    ).fetchall()
    assert rows == [("t0", None, True, "heuristic@2,outcome@1"), ("t1", 0.35, False, "heuristic@2,outcome@1")]
    judged = conn.execute(
        "SELECT trajectory_id, agent_id, score FROM babylon_training.ruler_scores WHERE scoring_method LIKE 'outcome@%'"
    ).fetchall()
    assert judged == [("t1", "a1", 0.1 + 0.2)]


def test_scoring_again_replaces_and_no_steps_give_no_scores(conn: Conn) -> None:
    versions = {"outcome": "1", "heuristic": "1"}
    trajectories.replace_scores(conn, WINDOW, scores(), versions)
    trajectories.replace_scores(conn, WINDOW, scores(), {**versions, "outcome": "2"})
    assert len(trajectories.read_scores(conn, WINDOW)) == 3
    trajectories.replace_scores(conn, WINDOW, scores().iloc[:0], versions)
    empty = trajectories.read_scores(conn, WINDOW)
    assert len(empty) == 0
    assert {"trajectory_id", "step", "state", "reward", "final"} <= set(empty.columns)


def test_calls_come_back_bit_for_bit(conn: Conn) -> None:
    text_only = inference_call(1, prompt_token_ids=None, token_ids=None, logprobs=None, seed=None, policy=None)
    inference_calls.insert_calls(conn, [inference_call(0), text_only])
    found = inference_calls.calls_by_id(conn, ["call-1", "call-0", "call-9", "call-0"])
    assert found == {"call-0": inference_call(0), "call-1": text_only}
    assert inference_calls.calls_by_id(conn, []) == {}


def test_tools_of_a_call_come_back(conn: Conn) -> None:
    asked = Message("assistant", "", (ToolCall("c1", "look", '{"a": "\u0001“"}'),))
    kept = inference_call(
        0, messages=[*PROMPT, asked], tools='[{"type":"function"}]', tool_calls=asked.tool_calls, response=""
    )
    inference_calls.insert_calls(conn, [kept])
    assert inference_calls.calls_by_id(conn, ["call-0"]) == {"call-0": kept}


def test_an_answer_of_any_characters_survives(conn: Conn) -> None:
    kept = inference_call(0, response=ODD, messages=[Message("user", ODD)])
    inference_calls.insert_calls(conn, [kept, inference_call(1, response="")])
    assert inference_calls.calls_by_id(conn, ["call-0", "call-1"]) == {
        "call-0": kept,
        "call-1": inference_call(1, response=""),
    }


def test_calls_are_found_by_id_by_trajectory_and_by_agent_and_time(conn: Conn) -> None:
    minute = timedelta(minutes=1)
    unplaced = {"trajectory_id": None, "agent_id": "a7"}
    made = [
        inference_call(0, trajectory_id="elsewhere"),
        inference_call(1, trajectory_id="t1"),
        inference_call(2, **unplaced, created_at=START + minute),
        inference_call(3, **unplaced, created_at=START - minute),
        inference_call(4, trajectory_id="t4", agent_id="a7", created_at=START + minute),
        inference_call(5, trajectory_id=None, agent_id="a8", created_at=START + minute),
    ]
    inference_calls.insert_calls(conn, made)
    times = {"start_time": START, "end_time": START + 2 * minute}
    trajectories.replace_window(conn, WINDOW, [record(1, agent_id="a1"), record(7, agent_id="a7", **times)], [])
    assert inference_calls.calls_of(conn, WINDOW, ["call-0", "call-9"]) == {f"call-{n}": made[n] for n in (0, 1, 2)}
    assert inference_calls.calls_of(conn, LATER, []) == {}


@pytest.mark.parametrize("column", ["messages", "response"])
def test_a_call_that_cannot_be_decoded_is_named(conn: Conn, column: str) -> None:
    inference_calls.insert_calls(conn, [inference_call(0)])
    conn.execute(f"UPDATE babylon_training.inference_calls SET {column} = '\\xff'".encode())
    with pytest.raises(CorruptLedger, match=r"call call-0 cannot be decoded.*restore"):
        inference_calls.calls_by_id(conn, ["call-0"])


def test_a_call_is_recorded_once(conn: Conn) -> None:
    inference_calls.insert_calls(conn, [inference_call(0)])
    conn.commit()
    with pytest.raises(errors.UniqueViolation):
        inference_calls.insert_calls(conn, [inference_call(1), inference_call(0)])
    conn.rollback()
    assert set(inference_calls.calls_by_id(conn, ["call-0", "call-1"])) == {"call-0"}


def test_a_dataset_is_kept_once_and_comes_back_exactly(conn: Conn) -> None:
    kept = dataset(sample(0), sample(1, logprobs=None, token_ids=None, prompt_token_ids=None, reward=None))
    assert datasets.save_dataset(conn, kept)
    assert not datasets.save_dataset(conn, kept)
    assert datasets.load_dataset(conn, kept.id) == kept
    assert len(datasets.dataset_frame(conn, kept.id)) == 2


def test_two_saving_one_dataset_at_once_keep_it_once(database: Database) -> None:
    kept = dataset(*(sample(n) for n in range(200)))

    def save(_: int) -> bool:
        with database.connect() as conn:
            return datasets.save_dataset(conn, kept)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(save, range(4))) == [False, False, False, True]


def drafted(conn: Conn, **chats: str) -> DatasetDraft:
    """The dataset of what is kept of the window, its texts unread."""
    records = trajectories.read_heads(conn, WINDOW)
    scored = scores().assign(reward=[0.5, 1.0, 0.0])
    hashes = trajectories.chat_hashes(conn, WINDOW) | chats
    return draft_dataset(WINDOW, records, {}, scores_by_step(scored), "babylon-agent", hashes, group_mode="window")


def test_the_texts_of_a_draft_are_kept_once_and_stay_when_the_window_is_read_again(conn: Conn) -> None:
    records = [record(0), record(1)]
    trajectories.replace_window(conn, WINDOW, records, [])
    draft = drafted(conn)
    assert datasets.save_dataset(conn, draft)
    kept = datasets.load_dataset(conn, draft.id)
    scored = scores().assign(reward=[0.5, 1.0, 0.0])
    assert kept == build_dataset(WINDOW, records, {}, scored, "babylon-agent", group_mode="window")
    assert [sample.messages for sample in kept.samples] == [PROMPT, PROMPT]
    assert _copied(conn) == 0
    trajectories.replace_window(conn, WINDOW, [record(0)], [])
    assert _copied(conn) == 2
    trajectories.replace_window(conn, WINDOW, [], [])
    assert datasets.load_dataset(conn, draft.id) == kept


def _copied(conn: Conn) -> int:
    """How many texts datasets have of their own."""
    row = conn.execute("SELECT count(chat) FROM babylon_training.training_dataset_trajectories").fetchone()
    assert row is not None
    return int(row[0])


def test_a_draft_of_texts_that_were_replaced_is_refused(conn: Conn) -> None:
    trajectories.replace_window(conn, WINDOW, [record(0), record(1)], [])
    draft = drafted(conn, t1="f" * 64)
    with pytest.raises(CorruptLedger, match="was read again"):
        datasets.save_dataset(conn, draft)
    with pytest.raises(CorruptLedger, match="is not kept"):
        datasets.load_dataset(conn, draft.id)


def test_a_text_that_was_changed_is_not_what_the_id_names(conn: Conn) -> None:
    kept = dataset(sample(0))
    datasets.save_dataset(conn, kept)
    other = compression.pack(encode_chat([Exchange(PROMPT, "sell")]))
    conn.execute("UPDATE babylon_training.training_dataset_trajectories SET chat = %s", [other])
    with pytest.raises(CorruptLedger, match=r"texts of dataset .* are not what its id names"):
        datasets.load_dataset(conn, kept.id)


def test_a_dataset_of_the_first_form_stays_what_it_was(conn: Conn) -> None:
    first = structs.replace(dataset(sample(0)), id=content_id([WINDOW, [sample(0)]]))
    assert datasets.save_dataset(conn, first)
    assert datasets.load_dataset(conn, first.id) == first


def test_an_empty_dataset_is_a_dataset(conn: Conn) -> None:
    datasets.save_dataset(conn, dataset())
    assert datasets.load_dataset(conn, dataset().id) == dataset()
    assert len(datasets.dataset_frame(conn, dataset().id)) == 0


def test_a_dataset_that_was_changed_or_is_missing_is_not_loaded(conn: Conn) -> None:
    one, other = dataset(sample(0)), dataset(sample(1))
    for kept in (one, other):
        datasets.save_dataset(conn, kept)
    conn.execute(
        "UPDATE babylon_training.training_datasets SET body = "
        "(SELECT body FROM babylon_training.training_datasets WHERE id = %s) WHERE id = %s",
        [other.id, one.id],
    )
    conn.execute("UPDATE babylon_training.training_datasets SET body = 'rubbish' WHERE id = %s", [other.id])
    for broken, told in ((one.id, "is not what its id"), (other.id, "cannot be read"), ("gone", "is not kept")):
        with pytest.raises(CorruptLedger, match=f"{broken} {told}.*(Build it again|materialize training_datasets)"):
            datasets.load_dataset(conn, broken)


def test_a_window_keeps_what_is_not_set(conn: Conn) -> None:
    first = windows.upsert_window(conn, WINDOW, fingerprint="f", trajectories=3, reward_mean=float("nan"))
    assert (first.status, first.fingerprint, first.trajectories, first.reward_mean) == ("open", "f", 3, None)
    second = windows.upsert_window(conn, WINDOW, status="thin", reference={"oracle": 0.5}, reason="few")
    assert replace(second, changed_at=first.changed_at) == replace(
        first, status="thin", reference={"oracle": 0.5}, reason="few"
    )
    assert windows.upsert_window(conn, WINDOW, reason=None, reference=None).reference is None
    assert windows.get_window(conn, LATER) is None


def test_windows_are_listed_oldest_first(conn: Conn) -> None:
    for window in (LATER, "2025-12-31T23:00", WINDOW):
        windows.upsert_window(conn, window)
    assert [row.window_id for row in windows.list_windows(conn)] == ["2025-12-31T23:00", WINDOW, LATER]


def test_when_a_window_changed_is_an_instant_in_utc(conn: Conn) -> None:
    row = windows.upsert_window(conn, WINDOW)
    assert row.changed_at.utcoffset() is not None
    conn.commit()
    assert windows.upsert_window(conn, WINDOW, reason="again").changed_at > row.changed_at


def test_a_running_mean_is_of_the_windows_before_and_stays_once_it_was_used(conn: Conn) -> None:
    def keep(window: str, *rewards: float, group: str = "g", policy: str | None = "babylon-agent@3") -> None:
        changed: dict[str, Any] = {"window": window, "group": group, "policy": policy}
        kept = dataset(*(sample(n, reward=reward, **changed) for n, reward in enumerate(rewards)), window=window)
        datasets.save_dataset(conn, kept)
        windows.upsert_window(conn, window, dataset_id=kept.id)

    assert datasets.running_mean(conn, LATEST, "", False) is None
    keep(WINDOW, 0.1, 0.2)
    keep(LATER, 0.6, group="g/=post")
    keep(LATEST, 9.0)
    assert datasets.running_mean(conn, LATEST, "", False) == 0.15
    assert datasets.running_mean(conn, LATEST, "post", False) == 0.6
    assert datasets.running_mean(conn, LATEST, "", True) is None
    assert datasets.running_mean(conn, WINDOW, "", False) is None
    keep(LATEST, 9.0, group=f"{LATEST}/~earlier/0.15")
    newest = windows.get_window(conn, LATEST)
    assert newest is not None
    assert list(datasets.dataset_frame(conn, newest.dataset_id or "")["compared_with"]) == ["running_mean"]
    keep(WINDOW, 0.5, 0.7)
    assert datasets.running_mean(conn, LATEST, "", False) == 0.15
    assert datasets.running_mean(conn, LATEST, "post", False) == 0.6


def test_late_samples_say_how_many_of_them_are_too_old_to_train_on(conn: Conn) -> None:
    old, young = sample(0), sample(1)
    origin = dataset(old, young)
    aged = structs.replace(old, trains_as="skip", skip_reason=TOO_OLD)
    for frozen in (origin, dataset(aged, young, window=LATER)):
        datasets.save_dataset(conn, frozen)
        windows.upsert_window(conn, frozen.window, dataset_id=frozen.id)
    late_samples.note(conn, CHAIN, WINDOW, origin.id, [old, young])
    assert late_samples.carried(conn, CHAIN) == [late_samples.CarriedSamples(WINDOW, None, 2)]
    late_samples.take(conn, CHAIN, LATER, late_samples.available(conn, CHAIN, LATER, None))
    expected = [late_samples.CarriedSamples(WINDOW, LATER, 2, 1)]
    assert late_samples.carried(conn, CHAIN) == late_samples.carried(conn, CHAIN, LATER) == expected
