"""The policy that was served last, in a small file beside the spool: what a gateway serves that starts without
PostgreSQL. The pointer itself is in the ledger; this is a copy of what was read there, and read only in its absence.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from babylon_assets.serving.answers import Target

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """What was served, of which chain, since when."""

    chain: str
    policy: Target
    at: datetime


_decode = msgspec.json.Decoder(ServedPolicy).decode


class PointerFile:
    """One file of a home folder; gateways that share the home all write it, each as a whole.

    Args:
        chain: whose policies are served; what was noted of another one is not read.
    """

    def __init__(self, path: Path, chain: str) -> None:
        self._path, self._chain = path, chain

    def note(self, policy: Target) -> None:
        """Keep the policy for the next start. A disk that cannot be written to is logged, and breaks nothing now."""
        fresh = self._path.with_suffix(f".{os.getpid()}")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(ServedPolicy(self._chain, policy, datetime.now(UTC))))
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("%s cannot be written (%s): a start without PostgreSQL would not find it", self._path, error)

    def last(self) -> ServedPolicy | None:
        """What was noted last; None where nothing was, or nothing that can be read."""
        try:
            noted = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("%s cannot be read: %s", self._path, error)
            return None
        return noted if noted.chain == self._chain else None
