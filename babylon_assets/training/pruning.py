"""Removing what is kept for a time: weights of checkpoints that nothing needs, and tokens of old calls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from babylon_assets.config.settings import Settings
from babylon_assets.domain.errors import CorruptLedger
from babylon_assets.ledger import lineage
from babylon_assets.ledger.adapter_weights import verify_weights
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.ledger.database import Database, chain_lock
from babylon_assets.ledger.inference_calls import drop_old_tokens
from babylon_assets.training.backends.registry import keeps_weights_here
from babylon_assets.training.folders import is_checkpoint_folder, remove_folder


@dataclass(frozen=True, slots=True)
class PrunedWeights:
    """Checkpoints whose weights were, or would be, removed, and the bytes of these.

    Attributes:
        elsewhere: checkpoints that are not needed either, and whose rows name a folder that is not theirs in this home,
            or that holds other weights; nothing was removed there.
    """

    checkpoints: list[Checkpoint]
    size: int
    elsewhere: list[Checkpoint]


def prune(settings: Settings, database: Database, keep: int, *, dry_run: bool = False) -> PrunedWeights:
    """Remove the weights that nothing needs; the chain's lock is held, so that no training is running.

    Args:
        keep: how many of the newest checkpoints keep their weights, as of `lineage.prunable`.

    Raises:
        TrainingBusy: a training is running.
    """
    with chain_lock(database, settings.model_name), database.connect() as conn:
        unneeded = lineage.prunable(conn, settings.model_name, keep)
        kept_here = [checkpoint for checkpoint in unneeded if keeps_weights_here(checkpoint.backend)]
        checkpoints_here = [checkpoint for checkpoint in kept_here if _is_ours(settings, checkpoint)]
        size = sum(_bytes(Path(pruned.path)) for pruned in checkpoints_here)
        for pruned in [] if dry_run else checkpoints_here:
            remove_folder(Path(pruned.path), "pruned")
            lineage.note_pruned(conn, pruned.id)
            conn.commit()
    return PrunedWeights(checkpoints_here, size, [other for other in kept_here if other not in checkpoints_here])


def _is_ours(settings: Settings, checkpoint: Checkpoint) -> bool:
    """A row is written by whoever may write our tables, and a folder by whoever uses the home.

    What a row names is removed only where its weights belong, and where it holds them: neither a link nor a folder that
    merely has the names of the chain and the step.
    """
    folder = Path(checkpoint.path)
    if folder.is_symlink():
        return False
    if not folder.is_dir():
        return True
    try:
        verify_weights(folder, checkpoint.weights_sha256)
    except (CorruptLedger, OSError):
        return False
    return is_checkpoint_folder(settings, folder, checkpoint.chain, checkpoint.step)


def prune_calls(settings: Settings, database: Database, *, dry_run: bool = False) -> int:
    """Remove tokens and log-probabilities of calls that are older than KEEP_CALL_TOKENS_DAYS; says of how many."""
    days = settings.automation.keep_call_tokens_days
    if days is None:
        return 0
    with database.connect() as conn:
        return drop_old_tokens(conn, datetime.now(UTC) - timedelta(days=days), dry_run=dry_run)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
