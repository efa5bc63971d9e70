"""Peak memory of this process, or of its GPU, and memory that it keeps."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import torch

# Parameters of glibc's mallopt(3), and the values that glibc itself comes to after large arrays.
_TRIM_THRESHOLD: Final = -1, 64 << 20
_MMAP_THRESHOLD: Final = -3, 32 << 20
_MMAP_MAX: Final = -4, 65536


def peak_memory_bytes(device: torch.device | str = "cpu") -> int:
    """Peak memory since `reset_peak`: tensors on a CUDA device, else the resident set; 0 on Windows."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    # Preferred to getrusage, whose maximum is inherited from the parent process.
    if status.exists() and (high_water := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(high_water[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none.
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def reset_peak(device: torch.device | str = "cpu") -> None:
    """Reset the peak. On systems that do not allow it (macOS, some containers) the peak is since the start."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.init()  # Resetting the peak fails before CUDA's first use.
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets the peak resident set size.


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Keep freed memory for the next arrays. Does nothing for a GPU, or where the C library is not glibc.

    glibc returns large arrays to the system when they are freed, and the system clears memory before it lends it again,
    which takes several times as long as reading an array. The peak is higher, as the gaps do not fit all arrays.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" and device.type == "cpu" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_MAX[0], 0)
    library.mallopt(_TRIM_THRESHOLD[0], 2**31 - 1)
    try:
        yield
    finally:
        for parameter in (_MMAP_MAX, _TRIM_THRESHOLD, _MMAP_THRESHOLD):
            library.mallopt(*parameter)
        library.malloc_trim(0)
