"""Fills the marked blocks of README.md and of docs/benchmarks.md: the map from the folders' docstrings, the learning
bench from its last run. `python -m tools.readme` writes them; a test compares the map.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
PACKAGE = ROOT / "babylon_assets"


def source_map() -> str:
    """The folders of the package, a line each: the first sentence of the folder's docstring."""
    lines = ["```", "babylon_assets/"]
    for folder in sorted(path.parent for path in PACKAGE.rglob("__init__.py")):
        depth = len(folder.relative_to(PACKAGE).parts)
        if 1 <= depth <= 2:
            lines.append(f"{'  ' * depth + folder.name + '/':<22} {_first_sentence(folder / '__init__.py')}")
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


def fill_block(text: str, block: str, content: str) -> str:
    """The text with what stands between `<!-- block -->` and `<!-- /block -->` replaced."""
    start, end = f"<!-- {block} -->", f"<!-- /{block} -->"
    return re.sub(f"{start}.*?{end}", lambda _: f"{start}\n{content}\n{end}", text, flags=re.DOTALL)


def main() -> None:
    """Write both files."""
    README.write_text(fill_block(README.read_text(), "map", source_map()))
    bench = ROOT / ".babylon" / "bench" / "learning.json"
    if bench.is_file():
        BENCHMARKS.write_text(fill_block(BENCHMARKS.read_text(), "learning", bench_table(bench)))


if __name__ == "__main__":
    main()
