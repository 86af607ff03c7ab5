"""Where and in what is computed: device, dtype, threads, and what to record of them."""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib import metadata
from typing import Any

import torch

from longspan.errors import ConfigError, did_you_mean

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def choose_device(name: str) -> torch.device:
    """`auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:1`.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("not supported")
    except RuntimeError as error:
        raise ConfigError(
            f"device {name!r} is unknown{did_you_mean(name, ['auto', 'cpu', 'cuda'])}"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' is not to be had here; use device=cpu or auto")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` (bfloat16 where measuring shows that it pays, else float32) or a dtype's name."""
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise ConfigError(f"dtype {name!r} is unknown{did_you_mean(name, ['auto', *DTYPES])}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    slow, fast = _product_time(torch.float32), _product_time(torch.bfloat16)
    return torch.bfloat16 if fast * 1.5 < slow else torch.float32


def _product_time(dtype: torch.dtype) -> float:
    a, b = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begun)
    return min(times)


def set_threads(threads: int) -> int:
    """Uses `threads` threads, or one a core for 0; says how many.

    Raises:
        ConfigError: fewer than 0.
    """
    if threads < 0:
        raise ConfigError(f"threads must be 0 (one a core) or more, not {threads}")
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    return torch.get_num_threads()


def versions() -> dict[str, str]:
    """What a result depends on beside the recipe."""
    packages = {name: metadata.version(name) for name in ("longspan", "torch", "numpy")}
    return {"python": platform.python_version(), **packages}


def hardware(device: torch.device) -> str:
    """The processor in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        name = models[0] if models else name
    except OSError:
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def record(device: torch.device) -> dict[str, Any]:
    """Versions, processor and threads: what exact repetition needs to be the same."""
    return {
        **versions(),
        "hardware": hardware(device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def peak_memory() -> int:
    """Greatest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
