"""Stands for `gpu_process` on a machine without a GPU: the same program, with one thing changed.

GPU_STAND_IN says what: `trains` leaves the look for a CUDA device out, so that answers to imitate are learned for real
on the processor; `dies` and `hangs` end or hold the process.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from babylon_assets.training.backends.local_gpu import gpu_process

if __name__ == "__main__":
    how = os.environ["GPU_STAND_IN"]
    sys.stderr.write(f"the stand-in {how}\n")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hangs":
        time.sleep(60)
    setattr(gpu_process, "_require_cuda", lambda: None)  # noqa: B010 - another function takes its place
    gpu_process.main(sys.argv[1:])
