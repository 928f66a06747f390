"""The file `.env`: where it is, what it says, and which of its variables are probably misspelled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from babylon_assets.domain.errors import SettingsError

#: The home where none is named, beside the file.
HOME = ".babylon"
#: Variables that were settings once, and what holds now.
REMOVED = {
    "GATEWAY_BODY_BYTES": "the gateway takes requests of up to 1 MB",
    "REPLAY_EFFECTIVE_SAMPLES": "an off-policy estimate needs 16 effective samples",
    "RULER_MAX_ATTEMPTS": "a group is judged in at most 9 attempts",
    "SERVERLESS_TIMEOUT_SECONDS": "a request to the hosted service may take 120 seconds",
}
#: Whatever begins so is meant for this product. The file may hold variables of other programs beside ours.
_OURS = ("CANARY_", "GATE_", "GATEWAY_", "LOCAL_GPU_", "RULER_", "SERVERLESS_", "SIMULATION_")
#: How like one of our names another name must be, from 0 to 1: one or two letters of a short name may differ.
_ALIKE = 0.85
#: A larger file is something else.
_MOST_BYTES = 2**20


def find_env_file(folder: Path) -> Path | None:
    """The `.env` of the folder or of the nearest folder above it that has one.

    The search ends at a folder that holds a home: what was begun there goes on there.
    """
    for place in (folder, *folder.parents):
        if (place / ".env").is_file():
            return place / ".env"
        if (place / HOME).is_dir():
            return None
    return None


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of the file, as they stand there: `$` in a password is a `$`.

    Raises:
        SettingsError: it cannot be read, is no UTF-8 text, is too large, or has a line that sets nothing.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig", "strict" if len(content) <= _MOST_BYTES else "ignore")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}; make it readable or remove it") from None
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if len(content) > _MOST_BYTES:
        raise SettingsError(f"{path} is larger than 1 MB; keep in it what sets variables")
    if "\0" in text:  # UTF-16 without its mark
        raise _not_utf8(path)
    lines = list(parse_stream(StringIO(text)))
    if broken := [line.original.line for line in lines if line.error]:
        raise SettingsError(f"{path}, line {broken[0]}, cannot be read; write NAME=value and close its quotes")
    return {line.key: line.value for line in lines if line.key and line.value}


def _not_utf8(path: Path) -> SettingsError:
    return SettingsError(f"{path} is not UTF-8 text; save it as UTF-8")


def explain_unknown(names: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """Each name that no setting has and that looks like one of ours: why it has no effect, and what to do."""
    explained = []
    for name in names:
        nearest = get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE)
        if not nearest and name.startswith(_OURS):
            nearest = get_close_matches(name, known, n=1, cutoff=0)
        if name in known:
            continue
        if name in REMOVED:
            explained.append((f"{name} is not read any more: {REMOVED[name]}", f"remove {name}"))
        elif nearest:
            explained.append((f"{name} is not a setting and has no effect", f"did you mean {nearest[0]}?"))
    return explained
