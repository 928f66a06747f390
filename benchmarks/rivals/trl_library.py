"""TRL for the benches: fetched once into a folder of their own, so that it is no dependency of the package.

It runs on the torch, transformers and peft that are installed. `datasets` is what its trainers are given.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

VERSION = "1.16.0"
_PACKAGES = (f"trl=={VERSION}", "datasets==5.2.0", "dill==0.4.1", "multiprocess==0.70.19", "pyarrow==26.0.1")


def trl_environment(home: Path, threads: int) -> dict[str, str]:
    """The environment of a process that imports TRL; it is fetched now if it is not installed and not there.

    Raises:
        CalledProcessError: pip cannot fetch it.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "WANDB_MODE": "disabled",
    }
    if importlib.util.find_spec("trl") is None:
        path = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(_fetched(home)), *([path] if path else [])])
    return environment


def _fetched(home: Path) -> Path:
    folder = home / "bench" / f"trl-{VERSION}"
    if not (folder / "trl").is_dir():
        print(f"fetching {' '.join(_PACKAGES)}", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *_PACKAGES]
        subprocess.run(command, check=True)
    return folder
