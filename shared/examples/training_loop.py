"""A training loop on `TrainingRun`: a small network learns to tell bright images from dark ones.

Kill it at any time; the same command with ``resume`` goes on as if it had never stopped.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vos_shared.checkpoints import safetensors_io
from vos_shared.runtime.distributed import fabric
from vos_shared.training.batches import read_batches
from vos_shared.training.run import TrainingRun


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Noise, RGB [3, 8, 8], and whether it is bright."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        step, slot = key  # A sample depends on these two alone, so that a run can go on anywhere.
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(100 * step + slot))
        return image, (image.mean() > 0.5).float()


def train(folder: Path, steps: int, *, resume: bool = False) -> Path | None:
    """Train in a folder; the weights, or None where it was asked to stop."""
    devices = fabric("cpu")
    devices.launch()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(192, 1))
    model, optimiser = devices.setup(network, torch.optim.Adam(network.parameters(), lr=1e-2))
    write = lambda path: safetensors_io.save(path, network.state_dict(), {"network": "example"})  # noqa: E731
    with TrainingRun(folder, devices, network, optimiser, steps=steps, write_weights=write, resume=resume) as run:
        for images, bright in run.over(
            read_batches(Images(), devices, first=run.step, steps=steps, batch=4, workers=0)
        ):
            loss = nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], bright)
            optimiser.zero_grad()
            devices.backward(loss)
            optimiser.step()
            run.finished({"loss": loss})
    return run.result


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), steps=100, resume="resume" in sys.argv))
