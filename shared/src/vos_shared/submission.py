"""Zip files for benchmark servers: checks of the masks, writing, and checks of existing files.

DAVIS requires `<sequence>/<frame>.png` for every frame, YouTube-VOS `Annotations/<video>/<frame>.png` for the frames in
`meta.json`.
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
"""Folder of the sequences in the zip file."""

_DAMAGE: Final = (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
"""Errors from damaged zip files; RuntimeError for an unknown compression."""

_LONGEST_NAME: Final = 200
"""Characters of an unknown file's name in a message."""

_HEADERS: Final = 1 << 16
"""Bytes that a mask may have beside its pixels."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""Time of all files in a zip file, so that the same masks give the same bytes."""


@dataclass(frozen=True)
class WantedMasks:
    """The masks of a sequence that a benchmark requires.

    Attributes:
        sequence: name of the sequence.
        frames: names of the frames.
        size: height and width.
        ids: object ids; a mask may contain no others.
        binary: all values above 0 are one foreground, so that masks may be black and white.
    """

    sequence: str
    frames: tuple[str, ...]
    size: tuple[int, int]
    ids: frozenset[int]
    binary: bool = False


def wanted_masks(benchmark: Benchmark, root: str | Path, split: str | None = None) -> list[WantedMasks]:
    """The masks that a benchmark requires.

    Args:
        benchmark: ``davis2016``, ``davis2017`` or ``youtube-vos``.
        root: folder of the data set.
        split: by default the split on which the benchmark validates.

    Raises:
        BadDataset: the folder is incomplete; names all that is missing.
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
    """Check all masks, then write the zip file; masks that are not required are left out.

    Args:
        benchmark: the benchmark, which determines the layout of the file.
        wanted: from `wanted_masks`.
        results: folder of `<sequence>/<frame>.png`.
        output: the zip file to write; the same masks give the same bytes.

    Returns:
        The number of masks.

    Raises:
        BadResults: names all that is wrong; no file is written.
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
    """Check a zip file of any program as `write_submission` checks results; it may contain nothing else.

    Args:
        benchmark: the benchmark, which determines the layout of the file.
        wanted: from `wanted_masks`.
        path: the zip file.

    Returns:
        The number of masks.

    Raises:
        BadResults: names all that is wrong.
    """
    path = Path(path)
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = {info.orig_filename: info for info in archive.infolist()}  # `filename` ends at a zero byte.
            problems = list(_strange_members(archive, _members(benchmark, wanted)))
            with ThreadPoolExecutor() as executor:
                found = executor.map(lambda item: _problems_packed(archive, members, benchmark, item), wanted)
                problems.extend(chain.from_iterable(found))
    except FileNotFoundError:
        raise BadResults(f"no such file: {path}") from None
    except _DAMAGE as reason:
        if isinstance(reason, OSError) and reason.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise  # The folder of temporary files is full.
        raise BadResults(f"{path} is not a zip file that can be read: {reason}; write it again") from None
    _refuse(path, problems)
    return len(_members(benchmark, wanted))


def _members(benchmark: Benchmark, wanted: Iterable[WantedMasks]) -> dict[str, PurePosixPath]:
    """Required masks in a results folder by their name in the zip file."""
    masks = [PurePosixPath(item.sequence, f"{frame}.png") for item in wanted for frame in item.frames]
    return {str(PurePosixPath(_FOLDERS[benchmark], mask)): mask for mask in masks}


def _strange_members(archive: zipfile.ZipFile, wanted: Collection[str]) -> Iterator[str]:
    """Problems with members that are not required, or that occur more than once."""
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
    """Problems with the masks of a sequence in a zip file; only these are unpacked, so that no name leads elsewhere."""
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
    """Problems with the masks of a sequence; frames with the same problem are reported together."""
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
    """The problem of a mask, in words that are the same for all masks with the same problem."""
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
