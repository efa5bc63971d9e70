"""Foreground masks that a user gives, such as the official ones, in place of the foreground net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vos_shared.errors import UserError
from vos_shared.masks import describe_size, read_mask
from vos_shared.video import Video


class GivenForeground:
    """Reads ``<video>/<frame>.png``, 0 or 255, as `IntermediateMaps` writes them to ``fgbg/``.

    Args:
        root: folder of the masks.

    Raises:
        UserError: it is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"spn-instances: --foreground-masks {root} is not a folder")
        self.root = root

    def check(self, video: Video) -> None:
        """Check, before any work, that each frame of a video has a mask.

        Raises:
            UserError: masks are missing; it names the first one.
        """
        missing = [name for name in video.frame_names if not self._path(video, name).is_file()]
        if missing:
            raise UserError(
                f"spn-instances: {len(missing)} of {len(video.frame_names)} frames have no foreground mask; the first "
                f"one would be {self._path(video, missing[0])}"
            )

    def read(self, video: Video | None, index: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """The mask of a frame as probabilities, float32 [H, W] of 0 and 1.

        Raises:
            UserError: the video has no name, since `Segmenter.prepare` was not called; or the mask has another size.
        """
        if video is None or index >= len(video.frame_names):
            raise UserError("spn-instances: foreground masks are found by the frames' names; call prepare first")
        path = self._path(video, video.frame_names[index])
        mask = read_mask(path, binary=True)
        if mask.shape != size:
            raise UserError(f"{path} is {describe_size(mask.shape)}, its frame {describe_size(size)}; resize one")
        return (mask > 0).astype(np.float32)

    def _path(self, video: Video, frame: str) -> Path:
        return self.root / video.name / f"{frame}.png"
