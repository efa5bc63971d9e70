"""Maps of the stages as 8-bit PNGs, in the official layouts (specification, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spn_instances.stages import Grey
from vos_shared.atomic import atomic_path
from vos_shared.errors import UserError
from vos_shared.video import Video


class IntermediateMaps:
    """Writes ``fgbg/<video>/<frame>.png`` (0 or 255), and ``<frame>_<object>.png`` below ``perobj`` and ``spn``.

    Args:
        root: the folder; None writes nothing.

    Raises:
        UserError: it is a file.
    """

    def __init__(self, root: Path | None) -> None:
        if root is not None and root.is_file():
            raise UserError(f"spn-instances: --intermediate {root} is a file; give a folder")
        self.root = root

    def write(
        self,
        video: Video | None,
        index: int,
        foreground: npt.NDArray[np.bool_],
        ids: Sequence[int],
        coarse: Grey,
        refined: Grey | None,
    ) -> None:
        """Write the maps of a frame.

        Args:
            video: gives its name and those of its frames.
            index: of the frame in the video.
            foreground: bool [H, W].
            ids: object ids, in the order of the maps.
            coarse: soft maps before spatial propagation, uint8 [K, H, W].
            refined: the same after it; None without this stage.

        Raises:
            UserError: the video has no name, since `Segmenter.prepare` was not called.
        """
        if self.root is None:
            return
        if video is None or index >= len(video.frame_names):
            raise UserError("spn-instances: maps are stored under the frames' names; call prepare first")
        frame = video.frame_names[index]
        _write(self.root / "fgbg" / video.name / f"{frame}.png", foreground.astype(np.uint8) * np.uint8(255))
        for row, object_id in enumerate(ids):
            _write(self.root / "perobj" / video.name / f"{frame}_{object_id}.png", coarse[row])
            if refined is not None:
                _write(self.root / "spn" / video.name / f"{frame}_{object_id}.png", refined[row])


def _write(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
