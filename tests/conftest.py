"""What all tests share, and their order. The fixtures themselves are in the modules named here."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.models", "tests.servers", "tests.gateways"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first. Modules stay whole, because what they set up is torn down at their end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path in slow)
