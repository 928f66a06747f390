"""How backends are found, and that nobody outside their rooms asks for one by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.errors import SettingsError
from babylon_assets.training.backends import registry
from babylon_assets.training.backends.local_gpu import backend as local_gpu
from tests.training.backends import bias_backend
from tests.training.backends.registration import register_bias_backend

PACKAGE = Path(__file__).parents[3] / "babylon_assets"
SHIPPED = {backend.name for backend in registry.SHIPPED}


def strings(node: ast.AST) -> set[str]:
    return {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)}


def branches_on_names(tree: ast.AST) -> Iterator[ast.AST]:
    """Comparisons, cases and keys that hold a backend's name; an engine of the gateway may have the same one."""
    for node in ast.walk(tree):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Compare) and "engine" not in ast.unparse(node).replace(repr("engine"), ""):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            asked = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            asked = [node]
        yield from (part for part in asked if strings(part) & SHIPPED)


def test_nobody_outside_branches_on_a_backends_name() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not str(path.relative_to(PACKAGE)).startswith(("training/backends/", "config/"))
        for node in branches_on_names(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code", ['x = backend == "embedded"', 'x = {"serverless": 1}', 'x = name in ("base", "local_gpu")']
)
def test_such_a_branch_is_seen(code: str) -> None:
    assert len(list(branches_on_names(ast.parse(code)))) == 1


def test_the_code_on_the_page_is_the_files() -> None:
    page = (PACKAGE.parent / "docs" / "backends.md").read_text()
    blocks = re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)
    source = Path(bias_backend.__file__).read_text()
    assert blocks and all(block in source for block in blocks)
    assert page.count("\n") <= 80
    assert [name for name in SHIPPED if f"| `{name}` |" not in page] == []
    assert registry.GROUP in page


def test_an_installed_package_adds_a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "bias" not in registry.registered_names()
    register_bias_backend(tmp_path, monkeypatch)
    assert registry.choose_backend(Settings(training_backend="bias")).backend.title == "the bias backend"
    assert registry.registered_names()[-1] == "bias"
    assert registry.select_backend(Settings()).name in SHIPPED


def test_a_name_that_nobody_registered_is_refused() -> None:
    with pytest.raises(SettingsError, match="TRAINING_BACKEND is 'embeded'"):
        Settings(training_backend="embeded")
    with pytest.raises(SettingsError, match=r"no training backend is called tinker; .*embedded"):
        registry.find_backend("tinker")


def test_weights_of_a_backend_that_is_not_installed_are_left_alone() -> None:
    assert not registry.keeps_weights_here("bias")
    assert registry.keeps_weights_here("embedded")


def test_the_ids_of_checkpoints_are_those_of_before(tiny_base: Path) -> None:
    """A manifest of a fixed training: another id here would train every chain again from its first window."""
    manifest = {
        name: registry.find_backend(name).manifest_settings(
            Settings(train_dtype="float32", sure_weight=0), str(tiny_base)
        )
        for name in ("embedded", "local_gpu", "serverless")
    }
    assert content_id(manifest) == "e6ec80ab4a1e7dcc8dcbd9e486d30ea2da013a20686fe16963e8f40be7222f81"


def test_the_automatic_choice_says_what_was_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gpu, "cuda_device", lambda: None)
    choice = registry.choose_backend(Settings())
    assert choice.reason == "there is no key of W&B; there is no CUDA device; this machine's processor trains"
