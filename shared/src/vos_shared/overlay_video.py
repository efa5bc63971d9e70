"""Overlay videos: objects drawn over the frames, as MP4."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tqdm import tqdm

from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadResults
from vos_shared.folders import mask_files
from vos_shared.masks import overlay, read_mask
from vos_shared.readahead import read_ahead
from vos_shared.results import require_masks
from vos_shared.video import Video, VideoWriter, video_comment

_DEFAULT_FPS: Final = 24.0
"""For frames without a frame rate, such as those of DAVIS."""
_COMMENT: Final = "objects drawn over the video by vos-shared"
"""Comment in the metadata of overlay videos; other videos are never replaced."""


def overlay_path(masks: Path) -> Path:
    """Path of the overlay video, beside the folder of masks."""
    return masks.with_name(f"{masks.name}.mp4")


def require_overlay(path: Path) -> None:
    """Raise `BadResults` if `path` exists and was not written by `write_overlay`, for example the input video."""
    if path.exists() and video_comment(path) != _COMMENT:
        raise BadResults(f"{path} is there already and is not an overlay video; choose another output folder")


def write_overlay(
    video: Video, masks: Path, path: Path, *, fps: float | None = None, alpha: float = 0.5, binary: bool = False
) -> None:
    """Draw the objects over the frames of a video.

    Args:
        video: the frames.
        masks: folder with ``<frame>.png`` for each frame.
        path: the ``.mp4`` file to write; its folder must exist.
        fps: frames a second; by default frames keep their times, or are shown 24 a second if they have none.
        alpha: opacity of the objects, 0..1.
        binary: all nonzero pixels of a mask are object 1.

    Raises:
        BadResults: frames without a mask (all are named), or `path` is not an overlay video.
        UserError: a frame or a mask cannot be read, or they differ in size.
    """
    require_overlay(path)
    require_masks(masks.parent, {masks.name: video.frame_names})
    files = mask_files(masks)
    drawn = (
        overlay(frame, read_mask(files[name], binary=binary), alpha)
        for name, frame in zip(video.frame_names, video, strict=True)
    )
    writer = VideoWriter(
        path,
        fps or video.fps or _DEFAULT_FPS,
        times=video.times if fps is None else None,
        pixel_aspect=video.pixel_aspect,
        comment=_COMMENT,
    )
    with writer:
        for frame in read_ahead(drawn):
            writer.write(frame)


def draw_sequences(
    sequences: list[VideoSequence],
    masks: Path | None,
    output: Path,
    *,
    fps: float | None = None,
    alpha: float = 0.5,
    many: bool = True,
) -> None:
    """Write the overlay videos of sequences.

    Args:
        sequences: the sequences.
        masks: results folder, or for a single video the folder of its masks; None for the sequences' own masks.
        output: with `many`, the folder for ``<sequence>.mp4``; otherwise the file.
        fps: as in `write_overlay`.
        alpha: as in `write_overlay`.
        many: whether the sequences are a data set.

    Raises:
        UserError: as in `write_overlay`; or `masks` is None and a sequence has no masks.
    """
    folder = output if many else output.parent
    folder.mkdir(parents=True, exist_ok=True)
    for sequence in tqdm(sequences, unit="sequence", disable=None):
        path = output / f"{sequence.name}.mp4" if many else output
        write_overlay(sequence.video, _mask_folder(sequence, masks), path, fps=fps, alpha=alpha, binary=sequence.binary)


def _mask_folder(sequence: VideoSequence, masks: Path | None) -> Path:
    if masks is not None:
        return masks / sequence.name if (masks / sequence.name).is_dir() else masks
    if not sequence.annotations:
        raise BadResults(f"no masks for video {sequence.name}; add --masks FOLDER")
    return next(iter(sequence.annotations.values())).parent
