"""The types of settings that need more than a range: how their text is read, and what the refusal says is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from babylon_assets.domain.errors import InvalidSetting
from babylon_assets.domain.windows import LENGTHS, is_window_id


@dataclass(frozen=True, slots=True)
class TextForm:
    """Mark of a type: what is allowed, in words, and how a value is written as the text that it is read from."""

    allowed: str
    write: Callable[[Any], str] = str


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("not allowed")


def _lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _upper_case(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _check_window(text: str) -> str:
    _require(is_window_id(text))
    return text


def _check_length(minutes: int) -> int:
    _require(minutes in LENGTHS)
    return minutes


def _make_absolute(path: Path) -> Path:
    path = path.expanduser().absolute()
    file = None
    with suppress(OSError):  # it cannot be looked at: whoever uses it says so
        file = next((place for place in (path, *path.parents) if place.is_file()), None)
    if file is not None:
        raise InvalidSetting(
            f"{file} is a file where the home folder should be; move it away, or set BABYLON_HOME to another folder"
        )
    return path


def _parse_backend(text: str) -> str:
    """`auto`, a backend of ours, or one that an installed package registers as an entry point."""
    from importlib.metadata import entry_points

    if text.lower() in _BACKENDS:
        return text.lower()
    _require(text in entry_points(group="babylon_assets.training_backends").names)
    return text


def parse_hashed_keys(text: str) -> dict[str, str]:
    """Keys by name, written `name:hash,...`; each hash the hex sha256 of a key.

    `name:hash:agents` is a key of certain agents: patterns as of a shell, separated by `|`. Its value is `hash:agents`.

    Raises:
        ValueError: another form, or a name twice.
    """
    pairs = [part.strip().split(":", 1) for part in text.split(",") if part.strip()]
    _require(all(len(pair) == 2 and re.fullmatch(r"[A-Za-z0-9._-]+", pair[0]) for pair in pairs))
    _require(all(re.fullmatch(r"[0-9a-f]{64}(:[^:|\s]+(\|[^:|\s]+)*)?", pair[1]) for pair in pairs))
    _require(len({name for name, _ in pairs}) == len(pairs))
    return {name: digest for name, digest in pairs}  # noqa: C416 - pairs are tuples of any length


def _write_hashed_keys(keys: Mapping[str, str]) -> str:
    return ",".join(f"{name}:{digest}" for name, digest in keys.items())


def _parse_import_paths(text: str) -> tuple[str, ...]:
    paths = tuple(part.strip() for part in text.split(",") if part.strip())
    _require(all(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", path) for path in paths))
    return paths


def _parse_host_names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    _require(all(re.fullmatch(r"[a-z0-9._-]+", name) for name in names))
    return names


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    _require(all(re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+", origin) for origin in origins))
    return origins


def _parse_aliases(text: str) -> dict[str, str]:
    pairs = [tuple(side.strip() for side in part.split("=", 1)) for part in text.split(",") if part.strip()]
    _require(all(len(pair) == 2 and all(re.fullmatch(r"\S+", side) for side in pair) for pair in pairs))
    aliases = {pair[0]: pair[1] for pair in pairs}
    _require(len(aliases) == len(pairs))
    return aliases


def _write_aliases(aliases: Mapping[str, str]) -> str:
    return ",".join(f"{name}={policy}" for name, policy in aliases.items())


def _parse_weights(text: str) -> dict[str, float]:
    pairs = [part.split("=") for part in text.split(",") if part.strip()]
    _require(all(len(pair) == 2 and pair[0].strip() for pair in pairs))
    weights = {name.strip(): float(weight) for name, weight in pairs}
    _require(len(weights) == len(pairs) and any(weights.values()))
    _require(all(map(math.isfinite, weights.values())))
    return weights


def _write_weights(weights: Mapping[str, float]) -> str:
    return ",".join(f"{name}={weight!r}" for name, weight in weights.items())


def _read_by(parse: Callable[[str], Any], write: Callable[[Any], str]) -> BeforeValidator:
    """Read a text, and a value that code passes by way of its text: the same rules hold for both."""
    return BeforeValidator(lambda value: parse(value if isinstance(value, str) else write(value)))


_BACKENDS = ("auto", "embedded", "serverless", "local_gpu")

LOWER_CASE = BeforeValidator(_lower_case)
UPPER_CASE = BeforeValidator(_upper_case)

Folder = Annotated[Path, AfterValidator(_make_absolute), TextForm("a folder, not a file")]
WindowMinutes = Annotated[int, AfterValidator(_check_length), TextForm("one of " + ", ".join(map(str, LENGTHS)))]
WindowId = Annotated[str, AfterValidator(_check_window), TextForm("the start of a window in UTC as YYYY-MM-DDTHH:MM")]
ChainName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
    TextForm("letters, digits, '.', '_' and '-'"),
]
EnvironmentName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
    TextForm("auto, babylon, feed, simulated, files, or one that a package adds"),
]
PolicyName = Annotated[str, StringConstraints(pattern=r"^\S+$"), TextForm("a policy such as babylon-agent@7")]
PostgresUrl = Annotated[
    str,
    StringConstraints(pattern=r"^postgres(ql)?(\+\w+)?://\S+$"),
    TextForm("a URL such as postgresql://user:password@host:5432/database"),
]
BackendName = Annotated[
    str, AfterValidator(_parse_backend), TextForm(", ".join(_BACKENDS) + ", or one that a package adds")
]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
ServerUrl = Annotated[_Url, TextForm("a URL such as http://127.0.0.1:8000/v1")]
TrainingUrl = Annotated[_Url, TextForm("a URL such as https://api.training.wandb.ai/v1")]
Webhook = Annotated[_Url, TextForm("a URL such as https://hooks.example.com/babylon")]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]+$"), TextForm("an IP address or a host's name")]
JudgeModel = Annotated[
    str,
    StringConstraints(pattern=r"^[\w.-]+/\S+$"),
    TextForm("provider/model as litellm names it, such as openai/gpt-4.1"),
]
HashedKeys = Annotated[
    Mapping[str, str],
    _read_by(parse_hashed_keys, _write_hashed_keys),
    TextForm(
        "name:hash or name:hash:agents, separated by commas, as `babylon serve --new-key NAME` prints them",
        _write_hashed_keys,
    ),
]
ImportPaths = Annotated[
    tuple[str, ...],
    _read_by(_parse_import_paths, ",".join),
    TextForm("package.module:name, separated by commas", ",".join),
]
HostNames = Annotated[
    tuple[str, ...],
    _read_by(_parse_host_names, ",".join),
    TextForm("names of hosts, separated by commas", ",".join),
]
Origins = Annotated[
    tuple[str, ...],
    _read_by(_parse_origins, ",".join),
    TextForm("origins such as https://desk.example.com, separated by commas", ",".join),
]
Aliases = Annotated[
    Mapping[str, str],
    _read_by(_parse_aliases, _write_aliases),
    TextForm("name=policy pairs separated by commas; a name may be a pattern such as gpt-*", _write_aliases),
]
Weights = Annotated[
    Mapping[str, float],
    _read_by(_parse_weights, _write_weights),
    TextForm("scorer=weight pairs separated by commas, not all zero", _write_weights),
]
