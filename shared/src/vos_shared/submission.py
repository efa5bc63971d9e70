"""The zip files that benchmark servers take, checked before they are written, and afterwards if need be.

DAVIS wants `<sequence>/<frame>.png` for every frame, YouTube-VOS `Annotations/<video>/<frame>.png` for the frames of
`meta.json` alone.
"""

from __future__ import annotations

import errno
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from vos_shared.atomic import atomic_path
from vos_shared.datasets import davis2016, davis2017, youtube_vos
from vos_shared.datasets.youtube_vos import read_meta, wanted_frames
from vos_shared.errors import BadMask, BadResults
from vos_shared.files import open_file, read_bytes
from vos_shared.folders import mask_files
from vos_shared.mask_files import OTHER_NUMBERS, read_file
from vos_shared.masks import describe_size, ids_of
from vos_shared.tables import listed, ranges

Benchmark = Literal["davis2016", "davis2017", "youtube-vos"]

_FOLDERS: Final[dict[Benchmark, str]] = {"davis2016": "", "davis2017": "", "youtube-vos": "Annotations"}
"""Where in the zip file the sequences are."""

_DAMAGE: Final = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged zip file raises, or one that is packed in an unknown way (a kind of RuntimeError)."""

_LONGEST_NAME: Final = 200
"""Characters of a strange file's name in a message."""

_HEADERS: Final = 1 << 16
"""Bytes beside its pixels that a mask may have."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""Of all files in a zip file, so that the same masks make the same one."""


@dataclass(frozen=True)
class WantedMasks:
    """What a benchmark wants of one sequence.

    Attributes:
        sequence: its name.
        frames: names of the frames.
        size: height and width.
        ids: of the objects; a mask may hold no others.
        binary: one foreground; any value above 0 is it, so masks may be black and white.
    """

    sequence: str
    frames: tuple[str, ...]
    size: tuple[int, int]
    ids: frozenset[int]
    binary: bool = False


def wanted_masks(benchmark: Benchmark, root: str | Path, split: str | None = None) -> list[WantedMasks]:
    """What a benchmark wants.

    Args:
        benchmark: ``davis2016``, ``davis2017`` or ``youtube-vos``.
        root: folder of the data set.
        split: by default as the data set's loader has it.

    Raises:
        BadDataset: with everything that is missing in the folder.
    """
    if benchmark == "youtube-vos":
        split = split or "valid"
        meta = read_meta(root, split)
        videos = youtube_vos(root, split)
        for video in videos:
            video.compare_objects()
        return [WantedMasks(v.name, wanted_frames(meta[v.name]), v.video.size, frozenset(meta[v.name])) for v in videos]
    load = davis2016 if benchmark == "davis2016" else davis2017
    return [
        WantedMasks(s.name, tuple(s.frame_names), s.video.size, frozenset(s.object_ids()), s.binary)
        for s in load(root, split)
    ]


def write_submission(
    benchmark: Benchmark, wanted: Sequence[WantedMasks], results: str | Path, output: str | Path
) -> int:
    """Check all masks, then write the zip file; masks of no wanted frame are left out.

    Args:
        benchmark: says how the file is laid out.
        wanted: from `wanted_masks`.
        results: folder of `<sequence>/<frame>.png`.
        output: the zip file; the same masks give the same bytes.

    Returns:
        The number of masks.

    Raises:
        BadResults: with everything that is wrong; no file is written then.
    """
    results, output = Path(results), Path(output)
    if not results.is_dir():
        raise BadResults(f"no such results folder: {results}")
    if output.is_dir():
        raise BadResults(f"{output} is a folder; name the zip file to write")
    _refuse(results, _problems(results, wanted))
    output.parent.mkdir(parents=True, exist_ok=True)
    names = _members(benchmark, wanted)
    masks = {item.sequence: mask_files(results / item.sequence) for item in wanted}
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in names.items():
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, read_bytes(masks[mask.parent.name][mask.stem]), zipfile.ZIP_DEFLATED)
    return len(names)


def validate_submission(benchmark: Benchmark, wanted: Sequence[WantedMasks], path: str | Path) -> int:
    """Check a zip file, whoever wrote it, as `write_submission` checks results; it may hold nothing else.

    Args:
        benchmark: says how the file is laid out.
        wanted: from `wanted_masks`.
        path: the zip file.

    Returns:
        The number of masks.

    Raises:
        BadResults: with everything that is wrong.
    """
    path = Path(path)
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = {info.orig_filename: info for info in archive.infolist()}  # Not cut at a zero, as `filename` is.
            problems = list(_strange_members(archive, _members(benchmark, wanted)))
            with ThreadPoolExecutor() as executor:
                found = executor.map(lambda item: _problems_packed(archive, members, benchmark, item), wanted)
                problems.extend(chain.from_iterable(found))
    except FileNotFoundError:
        raise BadResults(f"no such file: {path}") from None
    except _DAMAGE as reason:
        if isinstance(reason, OSError) and reason.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise  # Of the folder for temporary files.
        raise BadResults(f"{path} is no zip file that can be read: {reason}; write it again") from None
    _refuse(path, problems)
    return len(_members(benchmark, wanted))


def _members(benchmark: Benchmark, wanted: Iterable[WantedMasks]) -> dict[str, PurePosixPath]:
    """Name in the zip file of each mask in a results folder."""
    masks = [PurePosixPath(item.sequence, f"{frame}.png") for item in wanted for frame in item.frames]
    return {str(PurePosixPath(_FOLDERS[benchmark], mask)): mask for mask in masks}


def _strange_members(archive: zipfile.ZipFile, wanted: Collection[str]) -> Iterator[str]:
    """What is there beside the masks and their folders, or more than once."""
    counts = Counter(info.orig_filename for info in archive.infolist())
    folders = {f"{parent}/" for name in wanted for parent in PurePosixPath(name).parents}
    if surplus := [name for name in counts if name not in folders and name not in wanted]:
        some = ", ".join(name[:_LONGEST_NAME] for name in surplus[:3]) + (", .." if surplus[3:] else "")
        yield f"holds {len(surplus)} files that do not belong there: {some}"
    if doubled := [name for name in wanted if counts[name] > 1]:
        yield f"holds more than once: {listed(doubled)}"


def _problems_packed(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], benchmark: Benchmark, wanted: WantedMasks
) -> list[str]:
    """What is wrong with the masks of one sequence in a zip file; no others are unpacked, so none leads elsewhere."""
    most = 4 * wanted.size[0] * wanted.size[1] + _HEADERS
    large = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, wanted.sequence).mkdir()
        for name, mask in _members(benchmark, [wanted]).items():
            info = members.get(name)
            if info is not None and info.file_size > most:
                large[mask.stem] = info.file_size
            elif info is not None:
                with archive.open(info) as source, Path(folder, mask).open("wb") as file:
                    shutil.copyfileobj(source, file)
        rest = replace(wanted, frames=tuple(frame for frame in wanted.frames if frame not in large))
        too_large = [f"{wanted.sequence} {frame}: {size:,} bytes, too many for a mask" for frame, size in large.items()]
        return [*too_large, *_problems_of(Path(folder), rest)]


def _refuse(where: Path, problems: Sequence[str]) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise BadResults(f"{where} cannot be submitted, {count}: {listed(problems, '; ')}")


def _problems(results: Path, wanted: Iterable[WantedMasks]) -> list[str]:
    with ThreadPoolExecutor() as executor:
        found = executor.map(lambda item: list(_problems_of(results, item)), wanted)
        return [problem for problems in found for problem in problems]


def _problems_of(results: Path, wanted: WantedMasks) -> Iterator[str]:
    """What is wrong with the masks of one sequence; frames that share a problem are one."""
    folder = results / wanted.sequence
    there = mask_files(folder)
    lacking = [frame for frame in wanted.frames if frame not in there]
    if lacking:
        yield f"{wanted.sequence} lacks {ranges(lacking, wanted.frames)}"
    wrong: dict[str, list[str]] = {}
    for frame in wanted.frames:
        if frame in there and (problem := _problem(there[frame], wanted)):
            wrong.setdefault(problem, []).append(frame)
    for problem, frames in wrong.items():
        yield f"{wanted.sequence} {ranges(frames, wanted.frames)}: {problem}"


def _problem(path: Path, wanted: WantedMasks) -> str | None:
    """What is wrong with a mask, in words that are the same for all masks with the same problem."""
    try:
        file = read_file(path)
        mask = file.checked(binary=wanted.binary)
        if file.by_colours:  # The server reads the numbers.
            return f"{OTHER_NUMBERS}; write it with vos_shared.masks.write_mask"
        if not wanted.binary and file.colours.palette is None:
            return "grey, not a palette PNG; write it with vos_shared.masks.write_mask"
    except BadMask as error:
        return str(error).replace(f" {path}", "")
    if mask.shape != wanted.size:
        return f"{describe_size(mask.shape)}, not {describe_size(wanted.size)} like the frames"
    if strange := sorted({*ids_of(mask), int(mask.max())} - {0} - wanted.ids):  # The highest may be 255, void.
        ids = listed(map(str, sorted(wanted.ids)))
        return f"id {listed(map(str, strange))} where the objects are {ids}"
    return None
