"""A training loop on `TrainingRun`: a small network learns to tell bright images from dark ones.

It may be killed at any time; the same command with ``resume`` continues as if it had never stopped.
"""

import sys
from pathlib import Path

import torch

from vos_shared.checkpoints import safetensors_io
from vos_shared.runtime.distributed import fabric
from vos_shared.training.arguments import RunOptions
from vos_shared.training.run import TrainingRun


class Images(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Noise, RGB [3, 8, 8], and whether it is bright."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        step, slot = key  # A sample depends only on these two, so that a run can be resumed.
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(100 * step + slot))
        return image, (image.mean() > 0.5).float()


def train(options: RunOptions, steps: int) -> Path | None:
    """Train; returns the path of the weights, or None if the run was stopped."""
    devices = fabric("cpu")
    devices.launch()
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.1), torch.nn.Linear(192, 1))
    model, optimiser = devices.setup(network, torch.optim.Adam(network.parameters(), lr=1e-2))
    write = lambda path: safetensors_io.save(path, network.state_dict(), {"network": "example"})  # noqa: E731
    with TrainingRun(options, devices, network, optimiser, steps=steps, write_weights=write) as run:
        for images, bright in run.batches(Images(), 4):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], bright)
            optimiser.zero_grad()
            devices.backward(loss)
            optimiser.step()
            run.finished({"train/loss": loss}, {"train/lr": 1e-2})
    return run.result


if __name__ == "__main__":
    print(train(RunOptions(Path(sys.argv[1]), resume="resume" in sys.argv), steps=100))
