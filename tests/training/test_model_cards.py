"""A checkpoint's model card: made from the ledger, the same bytes each time, and no part of the weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from babylon_assets.domain.token_counts import explain_early_end
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights, weights_sha256
from babylon_assets.ledger.checkpoints import get
from babylon_assets.ledger.database import Database
from babylon_assets.training.model_cards import CARD, _text, render_card, write_card
from tests.ledger.values import CHAIN
from tests.site.filled_ledger import EARLY_END, HOSTILE, WINDOWS, fill


def folder_with_weights(tmp_path: Path) -> Path:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    (tmp_path / CARD).write_text("[More Information Needed]")
    return tmp_path


def test_the_card_says_what_the_ledger_has(database: Database, tmp_path: Path) -> None:
    folder = folder_with_weights(tmp_path)
    before, base_model = weights_sha256(folder), "/home/somebody/base_models/smollm2-1fd0c543601b"
    with database.connect() as conn:
        fill(conn)
        kept = get(conn, f"{CHAIN}-3")
        assert kept is not None
        made = replace(kept, base_model=base_model, settings={"tokens": 5051, "seed": kept.seed})
        member = replace(made, path=str(folder), weights_sha256=before)
        assert write_card(conn, member) == folder / CARD
        text = (folder / CARD).read_text()
        assert write_card(conn, member) is not None
    assert (folder / CARD).read_text() == text
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])
    verify_weights(folder, before)
    assert "somebody" not in text and "Information Needed" not in text
    assert text.count("| seed |") == 1
    assert text.count("| trained tokens |") == text.count("| trainable tokens |") == 1
    for part in (
        f"# {CHAIN}@3",
        f"trained from `{CHAIN}@1` on the answers of the window `{WINDOWS[2]}`",
        "| skip: held out | 1 |",
        "| scorers | outcome v1 |",
        "| loss | 0.1235 |",
        "| tokens | 5,051 |",
        "base_model: smollm2\n",
        "| market | - | 0.4750 | 0.3750 to 0.5750 | 0.9877 |",
        "| trained tokens | 5,051 |",
        f"\n\nA{explain_early_end(EARLY_END)[1:]}.\n",
        "Passed: all 1 rules hold.\n\n| rule |",
        "|\n\nRewards did not apply: too few actions",
        f"| trained from | `{CHAIN}@1` from `{CHAIN}@0` |",
    ):
        assert part in text, text


def test_texts_of_others_do_not_act_in_it(database: Database) -> None:
    with database.connect() as conn:
        fill(conn, HOSTILE)
        kept = get(conn, f"{CHAIN}-2")
        assert kept is not None
        text = render_card(conn, kept)
    assert "Rejected: " in text
    outside = re.sub("`[^`]*`", "", text)
    assert "<" not in outside and "\u202e" not in outside and not re.search(r"(?<!\\)\[", outside)
    assert "&#91;" not in text and r"\[x](javascript" in text  # what a person reads in the file


def test_an_interval_is_readable_in_the_raw_text_and_no_text_begins_a_link() -> None:
    assert _text("-0.006 [-0.037, +0.012] against") == "-0.006 [-0.037, +0.012] against"
    for link in ("[1](http://x)", "[1][2]", "[x]", "[[1](http://x)]"):
        assert not re.search(r"(?<!\\)\[(?!2)", _text(link)), link


def test_weights_that_are_elsewhere_have_no_card(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect() as conn:
        fill(conn)
        kept = get(conn, f"{CHAIN}-3")
        assert kept is not None
        assert write_card(conn, kept) is None
        assert write_card(conn, replace(kept, path="")) is None

        def full_disk(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        member = replace(kept, path=str(folder_with_weights(tmp_path)))
        monkeypatch.setattr(Path, "write_text", full_disk)
        assert write_card(conn, member) is None
    assert "No space left on device" in caplog.text
