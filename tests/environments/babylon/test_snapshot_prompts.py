"""Benchmark snapshots asked in the game's own form: no hindsight in a prompt, and worths by what became of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.environments.babylon.benchmarks import Snapshot
from babylon_assets.environments.babylon.environment import BabylonEnvironment
from babylon_assets.environments.babylon.snapshot_prompts import SnapshotPrompts
from babylon_assets.environments.feed.environment import FeedEnvironment
from babylon_assets.environments.snapshot_questions import SnapshotQuestion


def content(name: str = "s", minutes: int = 6) -> bytes:
    """Minutes of two markets, of which the first comes true, and one perpetual that rises by 1% a minute."""
    markets = [
        {"id": f"m-{n}", "question": f"Will {n} ship?", "yesPrice": price, "noPrice": 1 - price}
        for n, price in enumerate((0.4, 0.9))
    ]

    def state(minute: int) -> dict[str, Any]:
        perps = [{"ticker": "ACME", "price": 100 * 1.01**minute}]
        return {"predictionMarkets": markets, "perpetualMarkets": perps}

    post = {"type": "post:created", "data": {"content": "Everybody ships."}}
    ticks = [
        {"number": n, "timestamp": 1_790_000_000_000 + 60_000 * n, "events": [post], "state": state(n)}
        for n in range(minutes)
    ]
    prices = [{"tick": n, "price": 100 * 1.01**n} for n in range(minutes)]
    truth = {"marketOutcomes": {"m-0": True, "m-1": False}, "priceHistory": {"ACME": prices}}
    return json.dumps({"id": name, "initialState": state(0), "ticks": ticks, "groundTruth": truth}).encode()


@pytest.fixture(params=["feed", "babylon"])
def environment(request: pytest.FixtureRequest) -> BabylonEnvironment:
    kind = FeedEnvironment if request.param == "feed" else BabylonEnvironment
    return kind(Settings(environment=request.param))


def asked(environment: BabylonEnvironment) -> tuple[SnapshotPrompts, Snapshot, SnapshotQuestion]:
    reader = environment.snapshot_reader
    assert isinstance(reader, SnapshotPrompts)
    snapshot = reader.decode(content())
    first, later = reader.questions(snapshot)
    assert (first.id, later.id, first.cluster == later.cluster) == ("s/0/0", "s/5/0", True)
    return reader, snapshot, first


def answer(environment: BabylonEnvironment, kind: str, market: str, side: str, amount: int = 40) -> str:
    if environment.name == "feed":
        about = {"marketType": kind, "marketId": market, "side": side, "amount": amount}
        return json.dumps({"thought": "so", "action": "TRADE", "parameters": about})
    return json.dumps({"action": "trade", "trade": {"type": kind, "market": market, "action": side, "amount": amount}})


def test_the_prompt_is_the_games_own_and_says_nothing_of_what_came(environment: BabylonEnvironment) -> None:
    _, _, question = asked(environment)
    text = question.messages[-1].content
    assert ("m-0" in text) == (environment.name == "feed")
    for shown in ("Will 0 ship?", "ACME", "Everybody ships.", "Balance"):
        assert shown in text
    for hidden in ("outcome", "marketOutcomes", "105", "priceHistory"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("kind", "market", "side", "worth"),
    [
        ("prediction", "m-0", "buy_yes", 1.0),  # a share of 0.40 pays 1: 1.5 of the stake, of which 1 counts
        ("prediction", "m-0", "buy_no", -1.0),
        ("prediction", "Will 1 ship?", "buy_yes", -1.0),
        ("prediction", "m-1", "buy_no", 1.0),
        ("perp", "ACME", "open_long", (1.01**5 - 1) / 0.1),
        ("perp", "acme", "open_short", -(1.01**5 - 1) / 0.1),
    ],
)
def test_an_answer_is_worth_what_became_of_it(
    environment: BabylonEnvironment, kind: str, market: str, side: str, worth: float
) -> None:
    reader, snapshot, question = asked(environment)
    assert environment.settings.rewards.perp_full_scale_percent == 10
    step = environment.answers.parse(answer(environment, kind, market, side), question.messages, question.step)  # type: ignore[union-attr]
    value, valid = reader.value(snapshot, question, step)
    assert valid and value == pytest.approx(worth)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hm", (None, False)), ('{"action": "hold"}', (0.0, True)), ('{"action": "POST"}', (None, True))],
)
def test_what_is_no_order_is_worth_nothing_or_unknown(
    environment: BabylonEnvironment, text: str, expected: tuple[float | None, bool]
) -> None:
    reader, snapshot, question = asked(environment)
    step = environment.answers.parse(text, question.messages, question.step)  # type: ignore[union-attr]
    assert reader.value(snapshot, question, step) == expected


def test_an_order_for_what_is_not_there_or_beyond_the_balance_is_none(environment: BabylonEnvironment) -> None:
    reader, snapshot, question = asked(environment)
    for text in (
        answer(environment, "prediction", "m-9", "buy_yes"),
        answer(environment, "perp", "ACME", "open_long", 5000),
    ):
        step = environment.answers.parse(text, question.messages, question.step)  # type: ignore[union-attr]
        assert reader.value(snapshot, question, step) == (None, False)
