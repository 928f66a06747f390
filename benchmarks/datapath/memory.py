"""By how much a fresh process grows over one window and over ten.

The peak is taken after a window without rows, so that what importing and connecting need is not counted. Run as a
module it is that process: `python -m benchmarks.datapath.memory HOME PART WINDOW...` prints the growth in MB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from babylon_assets.config.settings import Settings
from babylon_assets.ledger.database import open_database
from babylon_assets.orchestration.resources import Installation
from benchmarks.datapath.line import ASSETS, run_line
from benchmarks.datapath.rows import following
from benchmarks.report import Row, at_most


def memory(settings: Settings, windows: list[str]) -> list[Row]:
    """Growth over one and over ten windows, raw to dataset."""
    nothing = following(windows[-1], 2)[-1:]
    return [
        at_most("growth of memory, 1 window", _growth(settings, [*nothing, *windows[:1]]), "MB", 60),
        at_most("growth of memory, 10 windows", _growth(settings, [*nothing, *windows]), "MB", 120),
        Row("  of which reading, 10 windows", _growth(settings, [*nothing, *windows], "copy"), "MB"),
    ]


def _growth(settings: Settings, windows: list[str], part: str = "line") -> float:
    command = [sys.executable, "-m", "benchmarks.datapath.memory", str(settings.home), part, *windows]
    with open_database(settings).connect() as conn:
        conn.execute("DELETE FROM babylon_training.windows")
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measure(home: str, part: str, windows: list[str]) -> float:
    settings = Settings(home=Path(home))
    installation = Installation(settings, open_database(settings))
    run = ASSETS.get(part, run_line)
    run(installation, windows[0])
    before = peak_mb()
    for window in windows[1:]:
        run(installation, window)
    return peak_mb() - before


def peak_mb() -> float:
    """This program's peak; `ru_maxrss` would count that of the process which started it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(_measure(sys.argv[1], sys.argv[2], sys.argv[3:]))
