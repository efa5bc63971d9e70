"""Training within inference: adaptation to a video, or fine-tuning on its first frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vos_shared.runtime.device import autocast
from vos_shared.runtime.memory import freed_memory_kept


@contextmanager
def trained_online(device: torch.device) -> Iterator[None]:
    """Compute gradients, also where the caller does not; without TF32, and on a processor with freed memory kept."""
    with torch.inference_mode(False), torch.enable_grad(), autocast(device, torch.float32), freed_memory_kept(device):
        yield
