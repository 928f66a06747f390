"""Fills the marked blocks of README.md from their sources: the settings from their declarations, the map from the
modules' first sentences, the learning bench from its last run. `python -m docs.readme` writes them; a test compares.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from babylon_assets.config.settings import declarations

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    """Every setting as a row of a markdown table."""
    rows = ["| variable | default | meaning | allowed |", "|---|---|---|---|"]
    for setting in declarations():
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.variable}` | {default} | {setting.doc} | {setting.allowed} |")
    return "\n".join(rows)


def source_map() -> str:
    """The tree of the package, a line a file: the first sentence of each module's docstring."""
    package = README.parent / "babylon_assets"
    lines = ["```", "babylon_assets/"]
    for folder in [package, *sorted(path.parent for path in package.rglob("__init__.py") if path.parent != package)]:
        indent = "  " * len(folder.relative_to(package).parts)
        if folder != package:
            lines.append(f"{indent}{folder.name}/")
        for module in sorted(folder.glob("*.py")):
            if module.name not in ("__init__.py", "__main__.py"):
                lines.append(f"{indent}  {module.name:<24} {_first_sentence(module)}")
    return "\n".join([*lines, "```"])


def _first_sentence(module: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(module.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[a-z`)])\. ", text)[0].rstrip(".")


def bench_table(path: Path) -> str:
    """The rows that a bench wrote as a markdown table."""
    rows = ["| figure | value | goal | holds |", "|---|---|---|---|"]
    for row in json.loads(path.read_text()):
        holds = {None: "", True: "yes", False: "no"}[row["holds"]]
        rows.append(f"| {row['name']} | {row['value']:.2f} {row['unit']} | {row['goal'] or ''} | {holds} |")
    return "\n".join(rows)


def filled(text: str, block: str, content: str) -> str:
    """The text with what stands between `<!-- block -->` and `<!-- /block -->` replaced."""
    start, end = f"<!-- {block} -->", f"<!-- /{block} -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{content}\n{end}", text, flags=re.DOTALL)


def main() -> None:
    """Write README.md."""
    text = filled(filled(README.read_text(), "settings", settings_table()), "map", source_map())
    bench = README.parent / ".babylon" / "bench" / "learning.json"
    if bench.is_file():
        text = filled(text, "learning", bench_table(bench))
    README.write_text(text)


if __name__ == "__main__":
    main()
