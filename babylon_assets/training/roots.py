"""What a chain begins from: which base model, what that is known by, and step 0 in the ledger.

What is trained from a root is in `window_training`.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import Connection

from babylon_assets.config.settings import Settings
from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.errors import ChainConflict
from babylon_assets.environments.small_models import Progress
from babylon_assets.ledger import checkpoints
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.training.backends import registry
from babylon_assets.training.families import find_config, require_local
from babylon_assets.training.model_folders import ensure_folder
from babylon_assets.training.model_sources import is_source

_log = logging.getLogger(__name__)


def base_model_of(settings: Settings, progress: Progress | None = None) -> str:
    """The base model to train: BASE_MODEL, or the backend's own; made when it is missing.

    Args:
        progress: what shows the making; None: the log says what is done.

    Raises:
        BaseModelRefused: BASE_MODEL names neither a model's folder nor what the hub could have.
    """
    base_model, progress = settings.training.base_model, progress or _logged_progress()
    if base_model is not None and is_source(base_model):
        return str(ensure_folder(settings.home, base_model, progress))
    if base_model is not None:
        if find_config(base_model) is None:
            require_local(base_model)
        return base_model
    return registry.choose_backend(settings).backend.prepare_base_model(settings, progress)


def _logged_progress() -> Progress:
    """A line of the log for each thing that is done to make a base model, when it begins."""
    begun: set[str] = set()

    def heard(what: str, _share: float) -> None:
        if what not in begun:
            begun.add(what)
            _log.info("%s, which is done once", what)

    return heard


def root_of(conn: Connection[Any], settings: Settings, base_model: str) -> Checkpoint:
    """Step 0 of the chain: the base model as it is.

    Raises:
        ChainConflict: the chain was begun from other weights.
    """
    fingerprint = base_fingerprint(base_model)
    root = checkpoints.ensure_root(
        conn,
        Checkpoint(
            id=content_id({"chain": settings.model_name, "base_model": fingerprint}),
            chain=settings.model_name,
            step=0,
            base_model=base_model,
            weights_sha256=fingerprint,
            seed=settings.training.seed,
            created_at=datetime.now(UTC),
        ),
    )
    if root.weights_sha256 != fingerprint:
        raise ChainConflict(
            f"the chain {settings.model_name} was begun from the base model {root.base_model}, and BASE_MODEL is now "
            f"{base_model}; set it back, or set BABYLON_MODEL to a new name to begin a new chain"
        )
    return root


def base_fingerprint(base_model: str) -> str:
    """What a base model is known by: the sha256 over a folder's weights and tokenizer, or a hub's name as it is."""
    folder = Path(base_model)
    if not folder.is_dir():
        return base_model
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors" or file.name in ("config.json", "tokenizer.json"):
            with file.open("rb") as content:
                digest.update(f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()};".encode())
    return digest.hexdigest()
