"""A trainer of `benchmarks.rivals` in a process of its own: given a folder of files, it leaves its result there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.samples import RecordedSample, write_samples


def run_trainer(
    folder: Path,
    trainer: str,
    work: Mapping[str, Any],
    groups: Sequence[Sequence[RecordedSample]],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Train on the groups as `work` says; gives what the trainer's `result.json` holds.

    Args:
        trainer: a module of this package, which says what it reads of `work`.

    Raises:
        RuntimeError: the trainer failed; with the end of what it printed.
    """
    (folder / "work.json").write_text(json.dumps(work))
    write_samples(folder / "samples.json", groups)
    command = [sys.executable, "-m", f"benchmarks.rivals.{trainer}", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{trainer} failed:\n{done.stderr[-2000:]}")
    return json.loads((folder / "result.json").read_text())
