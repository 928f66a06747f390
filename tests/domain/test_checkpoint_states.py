"""The words for the states of a checkpoint: the pages and the help have those of the table, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from babylon_assets.cli.chain import chains
from babylon_assets.domain.checkpoint_states import REJECTED, ROLLED_BACK, STATES, explain_end, state_off_the_line
from babylon_assets.site.checkpoint_pages import COLOURS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_site_its_page_and_the_help_of_chains_have_every_state() -> None:
    table = re.search(r"\| state \| means \|\n\|---\|---\|\n(.*?)\n\n", (DOCS / "site.md").read_text(), re.DOTALL)
    assert table is not None
    assert dict(re.findall(r"\| `(.+?)` \| (.+?) \|", table[1])) == dict(STATES)
    quoted = re.findall("`([^`]+)`", " ".join((chains.__doc__ or "").split()))
    assert {words for words in quoted if not words.startswith("babylon ")} == set(STATES)
    assert list(COLOURS) == list(STATES)


def test_the_reason_of_an_end_is_told_in_the_words_of_the_states() -> None:
    kept = {"refused: it is worse": REJECTED, "rolled back to a@1: it lost money": ROLLED_BACK}
    assert {reason: state_off_the_line(reason) for reason in kept} == kept
    assert list(map(explain_end, kept)) == ["rejected: it is worse", "rolled back to a@1: it lost money"]
