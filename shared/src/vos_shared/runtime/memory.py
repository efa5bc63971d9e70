"""Peak memory of this process, or of its GPU."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

import torch


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
