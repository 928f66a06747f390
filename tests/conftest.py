"""What all tests share, and their order. The fixtures themselves are in the modules named here."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

pytest_plugins = ["tests.models", "tests.servers", "tests.gateways"]
#: Folders from milliseconds a test to seconds, "" being the tests outside of any; the scenarios come last.
ORDER = (
    *("domain", "config", "report", "environments", "ledger", "", "training", "evaluation", "serving", "site"),
    "orchestration",
)
#: The longest of the slow modules is their first: what follows keeps the other workers busy until it has ended.
LONGEST = "test_up.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first. Modules stay whole, because what they set up is torn down at their end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in slow, item.path.name != LONGEST, _rank(item)))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later garbage collection, of which each training asks for one."""
    gc.collect()
    gc.freeze()


def _rank(item: pytest.Item) -> int:
    folders = item.path.relative_to(Path(__file__).parent).parts[:-1]
    folder = folders[0] if folders else ""
    return ORDER.index(folder) if folder in ORDER else len(ORDER)
