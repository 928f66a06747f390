"""A checkpoint's weights on disk beside what its row in the ledger says of them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from babylon_assets.domain.errors import CorruptLedger

#: The file of a checkpoint's folder that holds its weights, in peft's format.
WEIGHTS = "adapter_model.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def weights_sha256(checkpoint: Path) -> str:
    """The sha256 of a checkpoint's weights file."""
    with (checkpoint / WEIGHTS).open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()


def verify_weights(checkpoint: Path, recorded: str) -> None:
    """Compare a checkpoint's weights with what the ledger recorded of them; call before they are loaded.

    Args:
        recorded: their sha256; what is no sha256, such as a hosted service's own id, is compared with nothing.

    Raises:
        CorruptLedger: the file is missing, or holds other weights.
    """
    if not _SHA256.fullmatch(recorded):
        return
    remedy = "restore the folder from a backup, or promote another checkpoint"
    if not (checkpoint / WEIGHTS).is_file():
        raise CorruptLedger(f"{checkpoint} holds no weights; {remedy}")
    if weights_sha256(checkpoint) != recorded:
        raise CorruptLedger(f"the weights in {checkpoint} are not those that the ledger recorded; {remedy}")
