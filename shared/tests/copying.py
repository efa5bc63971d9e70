"""The smallest method: it repeats the prompt."""

import sys

import numpy as np
import tyro

from vos_shared.cli import run_cli
from vos_shared.errors import BadMask, BadVideo
from vos_shared.method import Frame, Method, ModelInfo, ObjectMask, Segmentation, Segmenter, Supervision
from vos_shared.segment import SegmentArguments, run_segment


class Copying(Segmenter):
    info = ModelInfo(parameters=0, weights="none needed", trained=True)

    def reset(self) -> None:
        self.mask: ObjectMask | None = None
        self.largest = 0

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        if self.mask is None:
            self.mask = np.zeros(frame.shape[:2], np.uint8)
        if frame.shape[:2] != self.mask.shape:
            raise BadVideo("frames of a video must have one size")
        if prompt is not None:
            if prompt.shape != self.mask.shape:
                raise BadMask("the mask must have the size of its frame")
            self.mask = np.where(self.mask == 0, prompt, self.mask)
            self.largest = max(self.largest, int(prompt.max()))
        planes = np.arange(1, self.largest + 1, dtype=np.uint8).reshape(-1, 1, 1)
        return Segmentation(self.mask, (self.mask == planes).astype(np.float32) if soft_masks else None)


def load(weights: str | None, device: str, precision: str, **options: object) -> Segmenter:
    return Copying()


COPYING = Method("copying", "The first mask again", "nobody", Supervision.FIRST_FRAME, "copying:load")

if __name__ == "__main__":
    sys.exit(run_cli(lambda: run_segment(COPYING, tyro.cli(SegmentArguments)), prog="copying"))
