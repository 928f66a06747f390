"""Registers the bias backend as an installed package does: by the metadata of a distribution on the import path."""

from __future__ import annotations

from pathlib import Path

import pytest

ENTRY_POINTS = """
[babylon_assets.training_backends]
bias = tests.training.backends.bias_backend:BiasBackend
"""


def register_bias_backend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package `bias-backend` for one test."""
    metadata = folder / "bias_backend-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bias-backend\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
