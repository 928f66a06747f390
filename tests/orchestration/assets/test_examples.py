"""The best and the worst answers on a dataset's page: bounded, in order, without Markdown of their own or secrets."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg

from babylon_assets.config.settings import Settings, secrets_of
from babylon_assets.domain.datasets import Sample
from babylon_assets.domain.trajectories import Message
from babylon_assets.environments.babylon.details import make_step
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.orchestration.examples import LONGEST_ANSWER, LONGEST_PROMPT, best_and_worst, example_metadata
from tests.ledger.values import sample

STEP = make_step(0, 1, 1, None, None, "BUY_SHARES", "prediction", "m1", None, "yes", 25.0, True, None, False)
ACTION = BabylonEnvironment(Settings()).describe_action(STEP)


def of_rewards(*rewards: float | None, **changes: Any) -> list[Sample]:
    return [sample(number, reward=reward, **changes) for number, reward in enumerate(rewards)]


def numbers(samples: list[Sample]) -> list[int]:
    return [int(each.trajectory_id[1:]) for each in samples]


def test_the_best_come_best_first_and_the_worst_worst_first_and_none_is_both() -> None:
    best, worst = best_and_worst(of_rewards(*range(12), None), {})
    assert (numbers(best), numbers(worst)) == ([11, 10, 9, 8, 7], [0, 1, 2, 3, 4])
    best, worst = best_and_worst(of_rewards(0.5, None, 0.25, 1.0), {})
    assert (numbers(best), numbers(worst)) == ([3, 0], [2])
    assert example_metadata(of_rewards(None), {}, []) == {}


def test_of_one_action_at_a_decision_point_one_answer_is_shown() -> None:
    """Twenty agents bought, three sold, one held: the table has each once."""
    samples = of_rewards(*(1 - number / 100 for number in range(24)))
    words = ["buy"] * 20 + ["sell"] * 3 + ["hold"]
    actions = {(each.trajectory_id, each.step): word for each, word in zip(samples, words, strict=True)}
    best, worst = best_and_worst(samples, actions)
    assert (numbers(best), numbers(worst)) == ([0, 20], [23])
    elsewhere = of_rewards(*(number / 100 for number in range(24)), group="another")
    best, worst = best_and_worst([*samples, *elsewhere], actions)
    assert [(row.group == "another", numbers([row])[0]) for row in best] == [(False, 0), (False, 20), (False, 23)]
    assert [(row.group == "another", numbers([row])[0]) for row in worst] == [(True, 0), (True, 20), (True, 23)]
    again = example_metadata([*best, *worst], actions, [])["best_and_worst"]
    assert isinstance(again, dg.TableMetadataValue)
    assert [record.data["which"] for record in again.records] == ["best"] * 3 + ["worst"] * 3


def test_the_table_says_who_did_what_and_what_it_was_worth() -> None:
    held_out = of_rewards(1.0, 0.25, advantage=None, trains_as="skip", skip_reason="held out")[1]
    samples = [*of_rewards(1.0, advantage=0.5), held_out]
    found = example_metadata(samples, {("t0", 0): ACTION}, [])
    table = found["best_and_worst"]
    assert isinstance(table, dg.TableMetadataValue)
    first, second = (record.data for record in table.records)
    assert list(first) == ["action", "which", "reward", "advantage", "trained as"]  # what 1,400 pixels show
    assert (first["which"], first["reward"], first["action"]) == ("best", "1.000", "BUY_SHARES yes m1 25")
    assert (first["advantage"], first["trained as"]) == ("0.5000", "policy gradient")
    assert "Agent `a0`, trained as `policy gradient`." in str(found["samples_in_full"].value)
    assert (second["which"], second["action"]) == ("worst", "hold")
    assert (second["advantage"], second["trained as"]) == ("-", "skipped: held out")
    assert "Agent `a1`, `skipped: held out`." in str(found["samples_in_full"].value)
    assert {column.name for column in table.schema.columns} == set(first)


def test_texts_are_bounded_and_stay_in_their_code_blocks() -> None:
    nasty = "```\n# a heading\n<img src=x>\n````"
    nastiest = of_rewards(1.0, messages=[Message("user", nasty * 2000)], response=nasty + "x" * 5000)
    full = example_metadata(nastiest, {}, [])["samples_in_full"]
    text = str(full.value)
    assert len(text) < LONGEST_PROMPT + LONGEST_ANSWER + 500
    assert re.findall(r"^(`{5,})text$", text, flags=re.MULTILINE) == ["`" * 8, "`" * 5]
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "heading" not in outside and "<img" not in outside
    assert "more characters)" in text


def test_no_secret_is_shown_even_where_it_would_be_cut() -> None:
    settings = Settings(database_url="postgresql://me:pass-word-1@host/db", wandb_api_key="wandb-key-123456")
    told = f"{'x' * (LONGEST_ANSWER - 6)}wandb-key-123456"
    samples = of_rewards(
        1.0, messages=[Message("user", "use pass-word-1, postgresql://me:pass-word-1@host/db")], response=told
    )
    text = str(example_metadata(samples, {}, secrets_of(settings))["samples_in_full"].value)
    assert "pass-word" not in text and "wandb" not in text
    assert "***" in text
