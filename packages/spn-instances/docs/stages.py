"""Draw the picture of the four stages in the README: ``python packages/spn-instances/docs/stages.py``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from PIL import Image

from spn_instances.inference import load
from vos_shared.datasets.synthetic import clip
from vos_shared.masks import DAVIS_PALETTE, overlay
from vos_shared.video import Video

SEED, FRAME = 4, 8
Picture = npt.NDArray[np.uint8]


def coloured(folder: Path, ids: list[int]) -> Picture:
    """The maps of all objects in one picture, each in its colour."""
    picture = np.zeros((), np.float64)
    for object_id in ids:
        soft = np.asarray(Image.open(folder / f"{FRAME:05}_{object_id}.png")) / 255
        picture = np.maximum(picture, soft[..., None] * (DAVIS_PALETTE[object_id].astype(np.float64) + 60))
    return picture.clip(0, 255).astype(np.uint8)


def main() -> None:
    """Fine-tune on the first frame of a synthetic clip, segment, draw."""
    frames, masks = clip(SEED, frames=FRAME + 1, objects=2)
    with TemporaryDirectory() as folder:
        segmenter = load(device="cpu", online=True, intermediate=Path(folder))
        segmenter.prepare(Video.open(frames, name="clip"))
        for index, frame in enumerate(frames):
            result = segmenter.step(frame, masks[0] if index == 0 else None).mask
        foreground = np.asarray(Image.open(Path(folder) / "fgbg" / "clip" / f"{FRAME:05}.png"))
        stages = [
            frames[FRAME],
            np.repeat(foreground[..., None], 3, 2),
            coloured(Path(folder) / "perobj" / "clip", [1, 2]),
            coloured(Path(folder) / "spn" / "clip", [1, 2]),
            overlay(frames[FRAME], result),
        ]
    row = Image.fromarray(np.concatenate(stages, 1))
    row.resize((row.width // 2, row.height // 2), Image.Resampling.LANCZOS).save(
        Path(__file__).with_name("stages.jpg"), quality=85
    )


if __name__ == "__main__":
    main()
