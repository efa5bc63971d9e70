"""The fast PNG decoder agrees with Pillow on all files that it decodes."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from vos_shared.errors import BadMask, BadVideo
from vos_shared.masks import DAVIS_PALETTE, read_mask, write_mask
from vos_shared.png import decode_plain
from vos_shared.video_sources import read_frame

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@given(mask=MASKS, bits=st.sampled_from([1, 2, 4, 8]), row_filter=st.sampled_from([0, 1]))
def test_fast_decoder_agrees_with_pillow(mask: npt.NDArray[np.uint8], bits: int, row_filter: int) -> None:
    """Grey and palette, every depth, with and without the filter that DAVIS-2016's files use."""
    mask = mask & np.uint8((1 << bits) - 1)
    packed = np.packbits(np.unpackbits(mask[..., None], axis=2)[..., 8 - bits :].reshape(len(mask), -1), axis=1)
    if row_filter:
        packed = np.diff(packed, axis=1, prepend=np.uint8(0))
    rows = np.pad(packed, ((0, 0), (1, 0)), constant_values=row_filter)
    data = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 3, 0, 0, 0)
    )
    data += (
        chunk(b"PLTE", bytes(768)[: 3 << bits]) + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    )
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.array(image), mask)
    fast = decode_plain(data, max_side=100)
    if fast is None:
        assert row_filter == 1
        assert bits < 8
    else:
        assert np.array_equal(fast, mask)


@pytest.mark.parametrize("colour", [0, 3])
@pytest.mark.parametrize(
    ("width", "height", "bits"), [(0, 4, 8), (4, 0, 8), (0, 0, 8), (4, 4, 0), (4, 4, 3), (4, 4, 5)]
)
def test_headers_that_no_image_has(tmp_path: Path, colour: int, width: int, height: int, bits: int) -> None:
    rows = bytes((1 + (width * bits + 7) // 8) * height)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data += chunk(b"PLTE", bytes(768)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert decode_plain(data, max_side=100) is None
    (tmp_path / "mask.png").write_bytes(data)
    with pytest.raises(BadMask, match=r"mask\.png cannot be read"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("row_filter", [0, 2])
def test_grey_ids_are_not_stretched(tmp_path: Path, bits: int, row_filter: int) -> None:
    """Viewers show grey 1 of 2 bits as 85, but it is id 1. A row with filter 2 is decoded by Pillow."""
    mask = np.array([[0, 1, 1, 0], [1, 1, 0, 1]], dtype=np.uint8) * np.uint8(min((1 << bits) - 1, 20))
    packed = np.packbits(np.unpackbits(mask[..., None], axis=2)[..., 8 - bits :].reshape(2, -1), axis=1)
    if row_filter == 2:
        packed[1] -= packed[0]
    rows = np.concatenate([[[0], [row_filter]], packed], axis=1).astype(np.uint8)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0))
    (tmp_path / "grey.png").write_bytes(data + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b""))
    assert np.array_equal(read_mask(tmp_path / "grey.png"), mask)


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_no_flipped_bit_changes_ids_without_a_word(tmp_path: Path, mode: str) -> None:
    """Pillow does not check the checksums of chunks that hold pixels."""
    mask = np.zeros((24, 30), np.uint8)
    mask[4:15, 3:20] = 1
    if mode == "P":
        mask[18:22, 6:25] = 3
        write_mask(tmp_path / "good.png", mask)
    else:
        Image.fromarray(mask.astype(bool) if mode == "1" else mask).save(tmp_path / "good.png")
    good, path = (tmp_path / "good.png").read_bytes(), tmp_path / "mask.png"
    random = np.random.default_rng(0)
    for bit in random.choice(8 * len(good), min(400, 8 * len(good)), replace=False).tolist():
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_mask(path)
        except BadMask:
            continue
        assert np.array_equal(found, mask), f"bit {bit}"


def test_a_frame_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    """Pillow, which decodes frames and maps, would return wrong pixels."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "good.png", compress_level=0)
    good, path = (tmp_path / "good.png").read_bytes(), tmp_path / "frame.png"
    for at in random.integers(60, len(good) - 40, 20).tolist():
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(BadVideo, match=r"frame\.png cannot be read: .*damaged or cut short"):
            read_frame(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16", "P8 interlaced"])
def test_no_flipped_bit_passes_whatever_the_colours(tmp_path: Path, mode: str) -> None:
    mask = np.zeros((24, 30), np.uint8)
    mask[4:15, 3:20] = 1
    path = tmp_path / "mask.png"
    path.write_bytes(interlaced(mask) if mode == "P8 interlaced" else saved(mask, mode))
    good = path.read_bytes()
    assert np.array_equal(read_mask(path), mask)
    for bit in np.random.default_rng(0).choice(8 * len(good), min(200, 8 * len(good)), replace=False).tolist():
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(BadMask):
            assert np.array_equal(read_mask(path), mask), f"bit {bit}"


def saved(mask: npt.NDArray[np.uint8], mode: str) -> bytes:
    content = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(mask.astype(np.uint16)).save(content, "PNG")
    else:
        colours = DAVIS_PALETTE[mask] if mode.startswith("RGB") else mask
        Image.fromarray(colours).convert(mode).save(content, "PNG")
    return content.getvalue()


def interlaced(mask: npt.NDArray[np.uint8]) -> bytes:
    """Adam7: seven coarser pictures one after another, as the PNG standard places them."""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(np.pad(mask[y::dy, x::dx], ((0, 0), (1, 0))).tobytes() for y, x, dy, dx in starts)
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], 8, 3, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", DAVIS_PALETTE.tobytes())
    return data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
