"""What this machine can compute with, found without importing torch: CUDA devices, and whether bf16 is fast.

What is trained where is decided in `backends`; with which numbers, in `precision`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Processor features with which bf16 matrix products are faster than fp32 ones.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
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


@cache
def bf16_is_fast() -> bool:
    """Whether the processor has instructions for bf16; False where /proc/cpuinfo does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(BF16_FLAGS & set(flags.split()))
