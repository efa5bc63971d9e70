"""The input of a command: a data set, or a video with or without prompts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vos_shared.errors import BadMask, DamagedVideo, UserError
from vos_shared.files import read_bytes
from vos_shared.terminal import escaped

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence
    from vos_shared.method import Supervision
    from vos_shared.video import Video


@dataclass(frozen=True, kw_only=True)
class InputArguments:
    """The options that name the input."""

    source: Annotated[str, tyro.conf.Positional]
    """Folder of a data set (for DAVIS the one that contains JPEGImages), folder of frames, glob pattern in quotes, or
    video file."""
    dataset: str = "davis2017"
    """Kind of data set: davis2017 (objects), davis2016 (one foreground), youtube-vos, youtube-objects,
    segtrack-v2 or fbms59; for images, each a sequence of one frame: saliency, voc2012, object-discovery or
    youtube-objects-boxes."""
    split: str | None = None
    """For a data set: name of a split or path of a list of sequences; by default val, for YouTube-VOS valid, for
    FBMS-59 Testset, otherwise all; all sequences if there are neither lists nor resolution folders (MOSE, LVOS)."""
    sequences: tuple[str, ...] = ()
    """For a data set: process only these sequences."""
    resolution: str | None = None
    """For DAVIS: folder below JPEGImages; by default 480p, or the only one."""
    accept_damaged: bool = False
    """For a video file that is damaged or cut short: use the frames that can be decoded."""

    @property
    def is_dataset(self) -> bool:
        """Whether the source is a data set: `dataset` is not DAVIS, the default, or the folder has JPEGImages."""
        return not self.dataset.startswith("davis") or Path(self.source, "JPEGImages").is_dir()

    def load(self, prompt: Path | None = None, *, masks_required: bool = True) -> list[VideoSequence]:
        """The sequences of the data set, or the one video.

        Args:
            prompt: mask of a video's first frame, or folder of masks named like the frames in which objects appear.
            masks_required: False accepts a data set without masks, for methods without prompts.

        Raises:
            UserError: the source or the prompt cannot be used.
        """
        from vos_shared.datasets import load_dataset, require_known

        require_known(self.dataset)
        if self.is_dataset:
            if prompt is not None:
                raise UserError(f"{self.source} is a data set, which brings its own masks; leave out --prompt")
            only = self.sequences or None
            return load_dataset(
                self.dataset, self.source, self.split, only, self.resolution, masks_required=masks_required
            )
        given = {"split": self.split, "sequences": self.sequences, "resolution": self.resolution}
        if unused := [f"--{name}" for name, value in given.items() if value]:
            raise UserError(f"{self.source} is not a data set (it has no JPEGImages); leave out {', '.join(unused)}")
        try:
            return [_video(self.source, prompt, accept_damaged=self.accept_damaged)]
        except DamagedVideo as error:
            raise DamagedVideo(f"{error} --accept-damaged takes what can be decoded") from error


def require_prompts(sequences: list[VideoSequence], supervision: Supervision) -> None:
    """Check, before any work, that each sequence has prompts if the method needs them.

    Raises:
        UserError: a sequence has no mask, or its masks hold no object.
    """
    if not _is_prompted(supervision):
        return
    for sequence in sequences:
        if not sequence.annotations:
            raise UserError(
                f"{sequence.name} has no mask; this method follows given objects: add --prompt MASK, "
                "a palette PNG of the first frame"
            )
        for note in sequence.compare_objects():
            print(f"note: {escaped(note)}", file=sys.stderr)
        if all(prompt is None for _, prompt in sequence.prompts()):
            raise UserError(f"the masks of {sequence.name} hold no object; there is nothing to follow")


def inputs_fingerprint(sequence: VideoSequence, supervision: Supervision) -> str:
    """Hash of samples of the frames, and of the masks if the method uses them."""
    digest = hashlib.sha256(sequence.video.fingerprint().encode())
    if _is_prompted(supervision):
        for frame_name, path in sequence.annotations.items():
            # A data set with its own format may store the masks of a frame in several files.
            content = read_bytes(path) if sequence.read is None else sequence.read(path).tobytes()
            digest.update(frame_name.encode() + b"\0" + content)
        digest.update(b"binary" if sequence.binary else b"ids")
        if sequence.objects is not None:
            digest.update(repr(sorted(sequence.objects.items())).encode())
    return digest.hexdigest()[:16]


def _is_prompted(supervision: Supervision) -> bool:
    return supervision.name == "FIRST_FRAME"  # Importing the enum would import NumPy for every --help.


def _video(source: str, prompt: Path | None, *, accept_damaged: bool) -> VideoSequence:
    """The sequence of a single video; a video file is decoded once, to find damage before any work."""
    from vos_shared.datasets import VideoSequence
    from vos_shared.masks import ids_of
    from vos_shared.video import Video

    video = Video.open(source, accept_damaged=accept_damaged)
    if video.damage:
        print(f"video {video.name} is damaged: {video.damage}; taking its {len(video)} frames", file=sys.stderr)
    masks = {} if prompt is None else _prompts(prompt, video)
    sequence = VideoSequence(video.name, video, masks, binary=_are_black_and_white(list(masks.values())))
    for frame_name, path in masks.items():
        mask = sequence.annotation(frame_name)
        if mask is not None and not ids_of(mask):
            raise BadMask(f"mask {path} holds no object, only background (0) or void (255); object masks hold ids 1..K")
    return sequence


def _are_black_and_white(masks: list[Path]) -> bool:
    """Whether masks are black and white (0 and 255) rather than ids.

    Raises:
        BadMask: some are black and white, others hold ids.
    """
    from vos_shared.mask_files import read_file
    from vos_shared.masks import ids_of

    drawn: dict[Path, bool] = {}  # Black-and-white masks, and whether they have a palette.
    others: list[Path] = []
    for path in masks:
        file = read_file(path)
        if file.ids.any() and file.is_black_and_white:
            drawn[path] = file.colours.palette is not None
        elif ids_of(file.checked(binary=False)):
            others.append(path)
    if others:  # Together with masks of ids, 255 in a palette is void.
        drawn = {path: has_palette for path, has_palette in drawn.items() if not has_palette}
    if drawn and others:
        raise BadMask(
            f"mask {next(iter(drawn))} is black and white, mask {others[0]} holds ids; store them alike, "
            "with ids (palette PNG) where there are several objects"
        )
    return bool(drawn)


def _prompts(prompt: Path, video: Video) -> Mapping[str, Path]:
    from vos_shared.folders import mask_files
    from vos_shared.tables import listed

    if not prompt.is_dir():
        return {video.frame_names[0]: prompt}
    masks = mask_files(prompt)
    names = set(video.frame_names)
    strangers = [str(path) for stem, path in masks.items() if stem not in names]
    if strangers or not masks:
        raise BadMask(
            f"{listed(strangers)}: video {video.name} has no frame of this name"
            if masks
            else f"folder {prompt} holds no mask; masks are PNG files named like the frames"
        )
    return {name: masks[name] for name in video.frame_names if name in masks}
