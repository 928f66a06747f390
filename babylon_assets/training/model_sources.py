"""What BASE_MODEL may name besides a folder and a hub name, and where the folder lies that is made of it once.

A name such as `smollm2` stands for a packaged model. A path that ends in `.gguf` or `.whl` is a file of the user's.
Either becomes a folder under the home, which is the base model from then on.
"""

from __future__ import annotations

from pathlib import Path

from babylon_assets.domain.content_ids import content_id
from babylon_assets.domain.errors import BaseModelRefused
from babylon_assets.training.model_wheels import PACKAGED

#: In a folder that was made of a source, where that came from; it is written last, so that the folder is whole.
ORIGIN = "origin.json"
#: Another number is another folder: raised when what is written into one changes.
FORMAT = 1
_FILES = (".gguf", ".whl")


def is_source(base_model: str) -> bool:
    """Whether a folder has to be made of this base model."""
    return base_model in PACKAGED or base_model.lower().endswith(_FILES)


def require_source(base_model: str) -> None:
    """Refuse a file that is not there.

    Raises:
        BaseModelRefused: it says what BASE_MODEL may be.
    """
    if base_model not in PACKAGED and not source_path(base_model).is_file():
        raise BaseModelRefused(
            f"there is no file {base_model}; set BASE_MODEL to a GGUF file, a wheel with one, a model's folder, a hub "
            f"name, or {' or '.join(PACKAGED)}"
        )


def source_folder(home: Path, base_model: str) -> Path:
    """Where the folder of a source lies, or will.

    A file is known by its path, size and time of change: a large one is not read to find its folder.
    """
    if base_model in PACKAGED:
        name, identity = base_model, {"sha256": PACKAGED[base_model].sha256}
    else:
        path = source_path(base_model)
        state = path.stat()
        name, identity = path.name.partition(".gguf")[0].partition(".whl")[0], {"path": str(path)}
        identity |= {"size": str(state.st_size), "changed": str(state.st_mtime_ns)}
    return home / "base_models" / f"{name}-{content_id({**identity, 'format': FORMAT})[:12]}"


def find_made_folder(home: Path, base_model: str) -> Path | None:
    """The folder of a source if it was made."""
    require_source(base_model)
    folder = source_folder(home, base_model)
    return folder if (folder / ORIGIN).is_file() else None


def source_path(base_model: str) -> Path:
    """The place of a file that BASE_MODEL names."""
    return Path(base_model).expanduser().resolve()
