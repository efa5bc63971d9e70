"""Masks: written ids are read back exactly, and files without ids are refused with the reason in one line."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from vos_shared.errors import BadMask
from vos_shared.mask_files import read_file
from vos_shared.masks import (
    DAVIS_PALETTE,
    bounding_box,
    ids_of,
    one_hot,
    overlay,
    read_mask,
    write_mask,
)

Mask = npt.NDArray[np.uint8]
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))
MASKS = st.one_of(
    *(arrays(np.uint8, SHAPES, elements=st.integers(0, largest)) for largest in (1, 3, 15, 255)),
)


def read_prompt(path: Path) -> Mask:
    """Read a mask as commands read a prompt: black and white, or ids."""
    file = read_file(path)
    return file.checked(binary=file.is_black_and_white)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks")


def disk(size: int = 64, radius: int = 20) -> Mask:
    y, x = np.ogrid[:size, :size]
    inside: Mask = ((y - size // 2) ** 2 + (x - size // 2) ** 2 <= radius**2).astype(np.uint8)
    return inside


def header(path: Path) -> tuple[int, int]:
    """Bit depth and colour type, as the PNG standard places them."""
    data = path.read_bytes()
    return data[24], data[25]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@given(mask=MASKS)
def test_written_ids_come_back(folder: Path, mask: Mask) -> None:
    write_mask(folder / "mask.png", mask)
    assert np.array_equal(read_mask(folder / "mask.png"), mask)


@given(mask=MASKS)
def test_others_read_the_same_ids_and_the_davis_colours(folder: Path, mask: Mask) -> None:
    write_mask(folder / "mask.png", mask)
    with Image.open(folder / "mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), mask)
        assert np.array_equal(np.array(image.convert("RGB")), DAVIS_PALETTE[mask])


@pytest.mark.parametrize(("largest", "bits"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (15, 4), (16, 8), (255, 8)])
def test_bit_depth_is_what_the_ids_need(tmp_path: Path, largest: int, bits: int) -> None:
    mask = np.zeros((5, 7), dtype=np.uint8)
    mask[2, 3] = largest
    write_mask(tmp_path / "mask.png", mask)
    assert header(tmp_path / "mask.png") == (bits, 3)


def test_palette_is_that_of_davis() -> None:
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert [tuple(colour) for colour in DAVIS_PALETTE[:7].tolist()] == first
    assert DAVIS_PALETTE[255].tolist() == [224, 224, 192]
    assert len(np.unique(DAVIS_PALETTE, axis=0)) == 256


def test_interlaced_and_1_bit_and_16_bit_files(tmp_path: Path) -> None:
    mask = disk()
    Image.fromarray(mask.astype(bool)).save(tmp_path / "one.png")
    assert header(tmp_path / "one.png") == (1, 0)
    assert np.array_equal(read_mask(tmp_path / "one.png"), mask)
    Image.fromarray(mask.astype(np.uint16) * 3).save(tmp_path / "sixteen.png")
    assert header(tmp_path / "sixteen.png") == (16, 0)
    assert np.array_equal(read_mask(tmp_path / "sixteen.png"), mask * 3)


def test_black_and_white_is_object_1_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    Image.fromarray(disk() * 255).save(path)
    assert np.array_equal(read_mask(path, binary=True), disk())
    assert np.array_equal(read_prompt(path), disk())
    with pytest.raises(BadMask, match=r"00000\.png is black and white"):
        read_mask(path)


@pytest.mark.parametrize("soft", [False, True])
def test_binary_masks_have_two_values(tmp_path: Path, soft: bool) -> None:
    """Read as binary, all nonzero pixels of a soft map or a resized mask would be object 1."""
    y, x = np.mgrid[:64, :64] - 32.0
    fading = np.clip(255 * (1 - np.hypot(y, x) / 40), 0, 255).astype(np.uint8)
    Image.fromarray(fading if soft else (fading > 90).astype(np.uint8) * 200).save(tmp_path / "mask.png")
    if soft:
        with pytest.raises(BadMask, match="different values"):
            read_mask(tmp_path / "mask.png", binary=True)
    else:
        assert np.array_equal(read_mask(tmp_path / "mask.png", binary=True), fading > 90)


def test_prompt_keeps_ids(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", disk() * 3)
    assert np.array_equal(read_prompt(tmp_path / "mask.png"), disk() * 3)


def test_void_is_kept(tmp_path: Path) -> None:
    mask = disk()
    mask[disk(radius=10) > 0] = 255
    write_mask(tmp_path / "palette.png", mask)
    Image.fromarray(mask).save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png"), mask)
    assert np.array_equal(read_mask(tmp_path / "grey.png"), mask)
    assert ids_of(mask) == [1]


def test_grey_ids_of_many_objects_are_ids(tmp_path: Path) -> None:
    mask = np.repeat(np.repeat(np.arange(49, dtype=np.uint8).reshape(7, 7), 8, axis=0), 8, axis=1)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


def blended(tmp_path: Path) -> None:
    Image.fromarray(disk(256, 80) * 255).resize((100, 100), Image.Resampling.BILINEAR).save(tmp_path / "mask.png")


def jpeg_compressed(tmp_path: Path) -> None:
    Image.fromarray(disk() * 255).save(tmp_path / "mask.jpg", quality=75)
    Image.open(tmp_path / "mask.jpg").save(tmp_path / "mask.png")


def large_ids(tmp_path: Path) -> None:
    Image.fromarray(disk().astype(np.uint16) * 300).save(tmp_path / "mask.png")


def jpeg(tmp_path: Path) -> None:
    Image.fromarray(disk()).save(tmp_path / "mask.png", format="JPEG")


def truncated(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8))
    data = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(data[: len(data) // 2])


def flipped_bits(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8))
    data = bytearray((tmp_path / "mask.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "mask.png").write_bytes(data)


def empty(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"")


def text(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("version https://git-lfs.github.com/spec/v1\n")


def folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "mask.png").mkdir()


def missing(tmp_path: Path) -> None:
    pass


def huge(tmp_path: Path) -> None:
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 13000, 13000, 8, 3, 0, 0, 0))
    data += chunk(b"PLTE", bytes(6)) + chunk(b"IDAT", zlib.compress(bytes(13001 * 100))) + chunk(b"IEND", b"")
    (tmp_path / "mask.png").write_bytes(data)


def understated(tmp_path: Path) -> None:
    """More data than the header announces: a decompression bomb or a damaged header."""
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 10, 8, 3, 0, 0, 0))
    data += chunk(b"PLTE", bytes(6)) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "mask.png").write_bytes(data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (blended, r"different values \(is it a JPEG or anti-aliased\?\); object masks hold ids 0\.\.K"),
        (jpeg_compressed, r"different values \(is it a JPEG or anti-aliased\?\)"),
        (large_ids, "holds id 300; ids above 255 are not supported"),
        (jpeg, "is a JPEG file; object masks are PNG files"),
        (truncated, "cut short"),
        (flipped_bits, "cannot be read"),
        (empty, "the file is empty"),
        (text, "not a PNG"),
        (folder_of_that_name, "cannot be read"),
        (missing, "does not exist"),
        (huge, "is 13000 wide and 13000 high; the limit is 8192"),
        (understated, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_mask_is_refused_in_one_line(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path)
    with pytest.raises(BadMask, match=says) as caught:
        read_mask(tmp_path / "mask.png")
    assert "mask.png" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64), np.zeros((0, 4), np.uint8)]
)
def test_only_id_arrays_are_written(tmp_path: Path, array: Mask) -> None:
    with pytest.raises(BadMask, match=r"uint8 \[H, W\]"):
        write_mask(tmp_path / "mask.png", array)
    assert list(tmp_path.iterdir()) == []


@given(mask=MASKS)
def test_ids_and_one_hot_rebuild_the_mask(mask: Mask) -> None:
    ids = ids_of(mask)
    planes = one_hot(mask, ids)
    assert planes.dtype == np.float32
    assert planes.shape == (len(ids), *mask.shape)
    rebuilt = np.tensordot(np.array(ids, dtype=np.float32), planes, axes=1)
    assert np.array_equal(rebuilt, np.where(mask == 255, 0, mask))


@given(mask=arrays(np.uint8, SHAPES, elements=st.integers(0, 1)))
def test_box_is_the_smallest_that_holds_the_object(mask: Mask) -> None:
    box = bounding_box(mask)
    if box is None:
        assert not mask.any()
        return
    top, left, bottom, right = box
    assert mask[top:bottom, left:right].sum() == mask.sum()
    inside = mask[top:bottom, left:right]
    assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018


@settings(max_examples=30)
@given(mask=MASKS)
def test_overlay_leaves_the_background_alone(mask: Mask) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    drawn = overlay(frame, mask)
    background = (mask == 0) | (mask == 255)
    assert np.array_equal(drawn[background], frame[background])
    assert np.array_equal(overlay(frame, np.zeros_like(mask)), frame)


def test_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(BadMask, match="5 wide and 4 high"):
        overlay(np.zeros((8, 8, 3), np.uint8), np.zeros((4, 5), np.uint8))


@pytest.mark.skipif("VOS_DATA" not in os.environ, reason="VOS_DATA is not set")
@pytest.mark.parametrize(
    ("folder", "binary"),
    [
        ("davis2017-val-open/Annotations/480p", False),
        ("davis2016-val-open/Annotations/480p", True),
        ("davis2017-240p/Annotations/240p", False),
        ("davis2016-train-240p/Annotations/240p", False),
        ("published-results/stm-davis2017", False),
    ],
)
def test_real_masks_equal_pillows_reading(folder: str, binary: bool) -> None:
    files = sorted(Path(os.environ["VOS_DATA"], folder).rglob("*.png"))[::17]
    assert files
    for path in files:
        with Image.open(path) as image:
            values = np.array(image).astype(np.uint8)
        assert np.array_equal(read_mask(path, binary=binary), np.minimum(values, 1) if binary else values), path


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_grey_saved_as_colour_is_grey(tmp_path: Path, mode: str) -> None:
    """The published bear/00077.png of DAVIS-2016 has an opaque alpha channel."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 4:20] = 255
    Image.fromarray(mask).convert(mode).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", binary=True), mask > 0)
    with pytest.raises(BadMask, match="black and white"):
        read_mask(tmp_path / "mask.png")
    if mode != "RGB":
        seen = Image.fromarray(mask).convert(mode)
        seen.putalpha(Image.fromarray(255 - mask // 2))
        seen.save(tmp_path / "clear.png")
        with pytest.raises(BadMask, match="in place of the colours"):
            read_mask(tmp_path / "clear.png", binary=True)
