"""What all tests share, and their order. The fixtures themselves are in the modules named here."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.models", "tests.servers", "tests.gateways"]
#: Folders from milliseconds a test to seconds, "" being the tests outside of any; the scenarios come last.
ORDER = (
    *("core", "report", "simulation", "game", "store", "", "training", "evaluation", "serving", "assets"),
    "automation",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first. Modules stay whole, because what they set up is torn down at their end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in slow, _rank(item)))


def _rank(item: pytest.Item) -> int:
    folder = item.path.parent.name
    folder = "" if folder == "tests" else folder
    return ORDER.index(folder) if folder in ORDER else len(ORDER)
