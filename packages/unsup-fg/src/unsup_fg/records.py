"""Training records of students and EvalSeg-Net: TFRecord shards in the official layout (specification, section 9)."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from unsup_fg.selection import SelectedSet, read_soft_mask
from unsup_fg.tfrecords import Example, Feature, RecordFile, RecordWriter
from vos_shared.errors import BadDataset
from vos_shared.method import Frame

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence

SIZE: Final = 256
"""Side of stored frames and soft masks, in pixels."""

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StudentRecord:
    """A frame and its soft mask.

    Attributes:
        name: name of the frame.
        frame: uint8 RGB [256, 256, 3].
        soft_mask: uint8 [256, 256], 255 is surely foreground.
    """

    name: str
    frame: Frame
    soft_mask: Grey

    @classmethod
    def of(cls, name: str, frame: Frame, soft_mask: Grey) -> StudentRecord:
        """Make a record; frame and soft mask are resized to a square, without keeping their aspect."""
        return cls(name, resized(frame), resized(soft_mask))

    def example(self) -> Example:
        """Return the record in the official layout."""
        return {
            "image/filename": [self.name.encode()],
            "image/height": [SIZE],
            "image/width": [SIZE],
            "image/frame0": [self.frame.tobytes()],
            "image/softseg": [self.soft_mask.tobytes()],
        }


@dataclass(frozen=True)
class EvalSegRecord:
    """A frame, a soft mask, and the label of the mask.

    Attributes:
        name: name of the frame.
        frame: uint8 RGB [H, W, 3].
        soft_mask: uint8 [H, W].
        label: quality of the mask, about 0 to 100.
    """

    name: str
    frame: Frame
    soft_mask: Grey
    label: float

    def example(self) -> Example:
        """Return the record in the official layout: the frame as JPEG, the soft mask as PNG."""
        height, width = self.frame.shape[:2]
        return {
            "image/filename": [self.name.encode()],
            "image/height": [height],
            "image/width": [width],
            "image/frame0": [_encoded(self.frame, "JPEG")],
            "image/softseg": [_encoded(self.soft_mask, "PNG")],
            "image/label": [float(self.label)],
        }


class Records:
    """All records of several folders of shards.

    Args:
        folders: folders with ``train-NNNNN-of-NNNNN`` files, or TFRecord files.

    Raises:
        BadDataset: there are no shards, one of a set is missing, or one is damaged.
    """

    def __init__(self, *folders: Path) -> None:
        files = [RecordFile(path) for folder in folders for path in _shards(folder)]
        self._places = [(file, index) for file in files for index in range(len(file))]
        if not self._places:
            raise BadDataset(f"{', '.join(map(str, folders))}: there is no record; select more masks")

    def __len__(self) -> int:
        return len(self._places)

    def student(self, index: int) -> StudentRecord:
        """Read a record of students.

        Raises:
            BadDataset: the record is damaged, or of another kind.
        """
        features, where = self._features(index)
        frame, soft_mask = _bytes(features, "image/frame0", where), _bytes(features, "image/softseg", where)
        if len(frame) != 3 * SIZE * SIZE or len(soft_mask) != SIZE * SIZE:
            raise BadDataset(f"{where} does not hold a frame of {SIZE} x {SIZE}; is it a record of EvalSeg-Net?")
        return StudentRecord(
            _bytes(features, "image/filename", where).decode(errors="replace"),
            np.frombuffer(frame, np.uint8).reshape(SIZE, SIZE, 3),
            np.frombuffer(soft_mask, np.uint8).reshape(SIZE, SIZE),
        )

    def evalseg(self, index: int) -> EvalSegRecord:
        """Read a record of EvalSeg-Net.

        Raises:
            BadDataset: the record is damaged, or of another kind.
        """
        features, where = self._features(index)
        label = features.get("image/label")
        if not label or not isinstance(label[0], float):
            raise BadDataset(f"{where} has no image/label; is it a record of students?")
        return EvalSegRecord(
            _bytes(features, "image/filename", where).decode(errors="replace"),
            _decoded(_bytes(features, "image/frame0", where), "RGB", where),
            _decoded(_bytes(features, "image/softseg", where), "L", where),
            label[0],
        )

    def _features(self, index: int) -> tuple[dict[str, Feature], str]:
        file, number = self._places[index]
        return file[number], f"record {number} of {file.path}"


def shard_paths(folder: Path, count: int) -> list[Path]:
    """Return the paths of the shards."""
    return [folder / f"train-{index:05d}-of-{count:05d}" for index in range(count)]


def _shards(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    paths = sorted(folder.glob("train-*-of-*"))
    if not paths:
        raise BadDataset(f"{folder} has no TFRecord shards (train-00000-of-..); write them with unsup-fg records")
    if len(paths) != (wanted := _shard_count(paths)):
        raise BadDataset(f"{folder} has {len(paths)} of {wanted} shards; write them again with unsup-fg records")
    return paths


def require_free(folder: Path, paths: Sequence[Path]) -> None:
    """Check that a folder holds no other shards.

    Raises:
        BadDataset: naming one of them.
    """
    if others := sorted(set(folder.glob("train-*-of-*")) - set(paths)):
        raise BadDataset(f"{folder} holds other shards ({others[0].name}); choose another --output")


def write_student_records(
    sequences: Sequence[VideoSequence],
    selected: Sequence[SelectedSet],
    folder: Path,
    shards: int,
    advance: Callable[[], object] = lambda: None,
) -> int:
    """Write the selected soft masks and their frames as shards; each record goes to a random shard.

    Args:
        sequences: sequences with the frames; each has its own name.
        selected: selected soft masks, of one or several teachers, named ``<sequence>/<frame>.png``.
        folder: folder for the shards.
        shards: number of shards.
        advance: called after each record.

    Returns:
        The number of records.

    Raises:
        BadDataset: a selected mask has no frame, or cannot be read; the folder holds other shards.
    """
    paths = shard_paths(folder, shards)
    require_free(folder, paths)
    wanted: dict[str, list[Path]] = {}
    for found in selected:
        for item in found.kept:
            wanted.setdefault(item.mask, []).append(Path(found.soft, item.mask))
    there = {f"{sequence.name}/{name}.png" for sequence in sequences for name in sequence.frame_names}
    if lacking := sorted(wanted.keys() - there):
        raise BadDataset(f"{len(lacking)} of {len(wanted)} selected masks have no frame here, such as {lacking[0]}")
    random, count = np.random.default_rng(0), 0
    with RecordWriter(paths) as writer:
        for name, frame in wanted_frames(sequences, wanted):
            for path in wanted[name]:
                record = StudentRecord.of(name, frame, read_soft_mask(path))
                writer.write(int(random.integers(shards)), record.example())
                count += 1
                advance()
    return count


def wanted_frames(sequences: Sequence[VideoSequence], wanted: Collection[str]) -> Iterator[tuple[str, Frame]]:
    """Read some frames of sequences, each with the name of its mask, ``<sequence>/<frame>.png``.

    Raises:
        BadVideo: a frame cannot be read.
    """
    for sequence in sequences:
        names = [f"{sequence.name}/{name}.png" for name in sequence.frame_names]
        if any(name in wanted for name in names):
            yield from (pair for pair in zip(names, sequence.video, strict=True) if pair[0] in wanted)


def _shard_count(paths: Sequence[Path]) -> int:
    text = paths[0].name.rpartition("-")[2]
    return int(text) if text.isdecimal() else len(paths)


def _bytes(features: dict[str, Feature], name: str, where: str) -> bytes:
    values = features.get(name)
    if not values or not isinstance(values[0], bytes):
        raise BadDataset(f"{where} has no {name}; is it a record of unsup-fg?")
    return values[0]


def resized(picture: Frame) -> Frame:
    """Resize an image to the size of records, without keeping its aspect."""
    if picture.shape[:2] == (SIZE, SIZE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def _encoded(picture: Frame, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, quality=95)
    return buffer.getvalue()


def _decoded(content: bytes, mode: str, where: str) -> Frame:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
            if max(image.size) > 8192:
                raise ValueError(f"{image.width} x {image.height} pixels")
            return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, EOFError) as reason:
        raise BadDataset(f"{where} holds a picture that cannot be read ({reason})") from reason
