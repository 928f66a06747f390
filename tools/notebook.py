"""Runs docs/notebook.ipynb and keeps what its cells show; a notebook is JSON, and its cells are plain Python.

`python -m tools.notebook` runs it on the ledger that the environment names, such as that of `babylon demo`, and writes
the file. A test runs the same cells on a ledger of its own.
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, run in their order in one namespace.

    Raises:
        Exception: whatever a cell raises, as it is.
    """
    import matplotlib

    matplotlib.use("Agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            outputs = _run_cell("".join(cell["source"]), namespace, number)
            cells.append({**cell, "execution_count": number, "outputs": outputs})
        else:
            cells.append(cell)
    return {**notebook, "cells": cells}


def _run_cell(source: str, namespace: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell prints, the value of its last expression, and the figures that it drew."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    value: Any = None
    printed = io.StringIO()
    with redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if hasattr(value, "to_html"):
        data = {"text/html": _lines(value.to_html()), "text/plain": _lines(str(value))}
        outputs.append({"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}})
    elif value is not None and not hasattr(value, "figure"):
        data = {"text/plain": _lines(repr(value))}
        outputs.append({"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}})
    return [*outputs, *_figures()]


def _figures() -> list[dict[str, Any]]:
    import matplotlib.pyplot as plt

    outputs = []
    for figure in map(plt.figure, plt.get_fignums()):
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
        data = {"image/png": base64.b64encode(image.getvalue()).decode(), "text/plain": ["a figure"]}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
        plt.close(figure)
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run the notebook and write it."""
    argparse.ArgumentParser(prog="python -m tools.notebook", description=__doc__).parse_args()
    done = run_notebook(json.loads(NOTEBOOK.read_text()))
    NOTEBOOK.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{NOTEBOOK}\n")


if __name__ == "__main__":
    main()
