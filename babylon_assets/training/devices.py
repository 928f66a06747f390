"""What this machine can train on, found without importing torch: CUDA devices, and the packages that need one.

What is trained where is decided in `backends.registry`; with which numbers, in `precision`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from functools import cache

#: What ART's extra `backend` brings that nothing else of ours does. Its vLLM is no package of this environment: ART
#: 0.5.18 makes it one of its own, with uv, when it first serves.
ART_BACKEND = ("unsloth", "trl", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A CUDA device by its driver's name, with its memory in GiB."""

    name: str
    memory_gib: float


@cache
def cuda_device() -> CudaDevice | None:
    """The first CUDA device that CUDA_VISIBLE_DEVICES leaves, asked of the driver itself; None without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device, memory, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    if (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    ):
        return None
    return CudaDevice(name.value.decode(errors="replace"), memory.value / 2**30)


def missing_for_art_backend() -> list[str]:
    """The packages of ART's extra `backend` that are not installed; found, not imported."""
    return [package for package in ART_BACKEND if importlib.util.find_spec(package) is None]
