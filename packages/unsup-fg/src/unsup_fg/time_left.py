"""How long the rest of a run takes, from the time that trainings took so far."""

from __future__ import annotations

from typing import Final

from unsup_fg.pipeline_settings import PipelineSettings
from unsup_fg.settings import INPUT_SIZES, NetworkName

GIGA_MACS: Final = {"lowres": 97.5, "basic-unet": 20.3, "dense-unet": 7.4, "dilate-unet": 19.7, "evalseg": 97.5}
"""Billions of multiplications and additions for an image at the published width and size (sections 4 to 8)."""
TRAINING: Final = 3
"""A training step costs that of three images at inference: forwards, and backwards to inputs and to kernels."""


class TimeLeft:
    """Estimates the time of stages in which networks run. Other stages are short beside them.

    A network that was trained in this run costs what it cost then; others in proportion to their multiplications.

    Args:
        settings: of the run.

    Attributes:
        frames: number of frames that networks see when they do not train.
        trainings: networks that have not been trained yet; one that learns in both iterations is there twice.
        inferences: networks that have not seen the frames yet; EvalSeg-Net is there once for each set of masks that
            it scores.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self.frames = 0
        self.trainings: list[NetworkName] = [*settings.students, "evalseg", *settings.second]
        evalseg: NetworkName = "evalseg"
        self.inferences: list[NetworkName] = [*settings.students, *(evalseg for _ in settings.candidates)]
        self._settings = settings
        self._seconds: dict[NetworkName, float] = {}

    def trained(self, network: NetworkName, seconds: float) -> None:
        """Note how long all steps of a training took."""
        self._seconds[network] = seconds / self._training(network)

    def seconds(self) -> float | None:
        """Estimate the time that is left; None before the first training has finished."""
        if not self._seconds:
            return None
        usual = sum(self._seconds.values()) / len(self._seconds)
        work = [(name, self._training(name)) for name in self.trainings]
        work += [(name, self.frames * self._image(name)) for name in self.inferences]
        return sum(amount * self._seconds.get(name, usual) for name, amount in work)

    def _training(self, network: NetworkName) -> float:
        training = self._settings.training(network)
        return TRAINING * training.steps * training.batch * self._image(network)

    def _image(self, network: NetworkName) -> float:
        architecture = self._settings.architecture(network)
        size = architecture.input_size / INPUT_SIZES[network]
        return GIGA_MACS[network] * (architecture.width * size) ** 2
