"""What a user imports: one sorted list of names, looked up when asked for, and enough for code of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import babylon_assets

ROOT = Path(__file__).parents[1]
#: Files and pages that show how to write a scorer, an environment and a training backend.
SHOWN = (
    *("tests/environments/support_desk.py", "tests/environments/brevity.py", "tests/training/backends/bias_backend.py"),
    *("README.md", "docs/rewards.md", "docs/environments.md", "docs/backends.md"),
)


def test_the_names_are_sorted_and_every_one_is_there() -> None:
    assert babylon_assets.__all__ == sorted(babylon_assets.__all__) == dir(babylon_assets)
    named = {name: getattr(babylon_assets, name) for name in babylon_assets.__all__}
    assert {name for name, value in named.items() if value.__module__.partition(".")[0] != "babylon_assets"} == {
        "Connection"  # psycopg's own
    }
    assert len(named) > 40


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Enviroment"):
        _ = babylon_assets.Enviroment  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_of_what_it_offers() -> None:
    code = "import sys, babylon_assets; print(*(m for m in sys.modules if m.startswith(('babylon_assets.', 'pandas'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("shown", SHOWN)
def test_what_users_are_shown_imports_the_public_surface_alone(shown: str) -> None:
    text = (ROOT / shown).read_text()
    lines = [line for line in text.splitlines() if line.startswith(("from babylon_assets", "import babylon_assets"))]
    assert all(line.startswith("from babylon_assets import ") for line in lines)
    if shown.endswith(".py"):
        tree = ast.parse(text)
        names = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "babylon_assets"
            for alias in node.names
        ]
        assert names
        assert set(names) <= set(babylon_assets.__all__)
