"""Weights on disk are those that the ledger recorded, or they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.ledger.adapter_weights import WEIGHTS, verify_weights, weights_sha256


def test_other_weights_and_none_are_refused_and_a_services_own_id_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    recorded = weights_sha256(tmp_path)
    verify_weights(tmp_path, recorded)
    verify_weights(tmp_path / "nowhere", "artifact-7")
    (tmp_path / WEIGHTS).write_bytes(b"Weights")
    with pytest.raises(CorruptLedger, match="not those that the ledger recorded"):
        verify_weights(tmp_path, recorded)
    with pytest.raises(CorruptLedger, match="holds no weights"):
        verify_weights(tmp_path / "nowhere", recorded)
