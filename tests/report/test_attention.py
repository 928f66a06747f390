"""What needs a person, one thing at a time, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from babylon_assets.domain.late_data import beside
from babylon_assets.report.attention import list_needs
from tests.report.values import NOW, full, job, nothing, well, window

INCIDENTS = Path(__file__).parents[2] / "docs" / "incidents"


def test_a_loop_in_order_needs_nobody() -> None:
    assert list_needs(well()) == []


@pytest.mark.parametrize(
    ("changes", "title", "command"),
    [
        ({"free_gib": 1.4}, "1.4 GiB of disk are free", "babylon prune --keep 24 --dry-run"),
        (
            {"windows": [nothing(9, "failed", "SourceError: no table"), nothing(8, "failed", None)]},
            "2 windows failed",
            f"babylon train {window(9).id}",
        ),
        (
            {"failed": [job(4, reason="refused")]},
            "1 training job was refused or failed",
            f"babylon train {window(4).id}",
        ),
        (
            {"running": [job(2, state="submitted", heartbeat=NOW - timedelta(hours=3))]},
            f"the training of {window(2).id} is silent for 3.0 hours",
            f"babylon train {window(2).id}",
        ),
        (
            {"running": [job(1, state="training", silent_after=timedelta(minutes=1))]},
            f"the training of {window(1).id} is silent for 3 minutes",
            f"babylon train {window(1).id}",
        ),
        (
            {"failed": [job(4, chain="babylon-agent+late", reason="refused")]},
            "1 training job was refused or failed",
            f"babylon train {window(4).id} --branch --name late",
        ),
        (
            {"running": [job(1, chain="babylon-agent+late", state="training", silent_after=timedelta(minutes=1))]},
            f"the training of {window(1).id} is silent for 3 minutes",
            f"babylon train {window(1).id} --branch --name late",
        ),
        (
            {"windows": [nothing(9, "open", None), nothing(4, "ready", None), nothing(2, "open", None)]},
            "2 windows are overdue",
            f"babylon train {window(9).id}",
        ),
        (
            {"windows": [nothing(9, "open", None), nothing(5, "open", None)], "running": [job(5, state="training")]},
            "1 window is overdue",
            f"babylon train {window(9).id}",
        ),
        ({"windows": [nothing(9, "skipped", "no token")]}, "1 window was skipped", f"babylon status {window(9).id}"),
        ({"windows": [window(3, quarantined=2)]}, "1 window has many rows in quarantine", ""),
        ({"odd_ids": {"2026-10-01": 3}}, "3 rows have a windowId that is no window", ""),
    ],
)
def test_each_trouble_is_named_with_what_to_do(changes: dict[str, Any], title: str, command: str) -> None:
    [need] = list_needs(well(**changes))
    assert (need.title, need.command) == (title, command)
    assert need.command or need.advice


@pytest.mark.parametrize(
    "changes",
    [
        {"windows": [window(3, quarantined=1)]},
        {"running": [job(1, state="training")]},
        {"windows": [nothing(9, "thin", "2 agents")]},
        {"windows": [nothing(9, "skipped", f"the chain has moved on to a later one; {beside(window(9).id)}")]},
        {"windows": [nothing(0, "open", None)]},
        {"windows": [nothing(9, "open", None), nothing(5, "ready", None)], "running": [job(9, state="training")]},
        {"free_gib": None},
    ],
)
def test_what_is_normal_needs_nobody(changes: dict[str, Any]) -> None:
    assert list_needs(well(**changes)) == []


def test_a_failed_window_is_not_named_twice() -> None:
    both = well(windows=[nothing(4, "failed", "why")], failed=[job(4, reason="why")])
    assert [need.title for need in list_needs(both)] == ["1 window failed"]


def test_many_are_counted_and_some_are_named() -> None:
    [need] = list_needs(well(windows=[nothing(back, "skipped", "why") for back in range(20, 10, -1)]))
    assert need.title == "10 windows were skipped"
    assert need.detail.endswith("; and 6 more")


@pytest.mark.parametrize("make", [full])
def test_every_need_has_its_page(make: Callable[[], Any]) -> None:
    pages = {need.page for need in list_needs(make())}
    assert len(pages) >= 5
    assert [page for page in pages if not (INCIDENTS / f"{page}.md").is_file()] == []
