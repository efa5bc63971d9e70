"""Pictures of masks: read by their colours where these are certain, refused in one line where not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vos_shared.doctor import examine
from vos_shared.errors import BadMask, BadResults
from vos_shared.evaluation import evaluate
from vos_shared.mask_files import read_file
from vos_shared.masks import DAVIS_PALETTE, read_mask, write_mask
from vos_shared.submission import wanted_masks, write_submission

Mask = npt.NDArray[np.uint8]
RED, GREEN, BLACK, WHITE = (128, 0, 0), (0, 128, 0), (0, 0, 0), (255, 255, 255)


def read_prompt(path: Path) -> Mask:
    """Read a mask as commands read a prompt: black and white, or ids."""
    file = read_file(path)
    return file.checked(binary=file.is_black_and_white)


def two_objects() -> Mask:
    mask = np.zeros((60, 80), np.uint8)
    mask[8:40, 5:30] = 1
    mask[20:52, 44:70] = 2
    return mask


MASK = two_objects()
ONE = np.minimum(MASK, 1)


def indexed(path: Path, numbers: Mask, colours: Sequence[tuple[int, int, int]], **options: object) -> Path:
    image = Image.fromarray(numbers)
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(path, format="PNG", **options)
    return path


def painted(path: Path, numbers: Mask, *colours: tuple[int, ...]) -> Path:
    Image.fromarray(np.array(colours, np.uint8)[numbers]).save(path, format="PNG")
    return path


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 2, 1), (1, 2, 0)])
def test_davis_colours_in_another_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    numbers = np.argsort(order).astype(np.uint8)[MASK]
    path = indexed(tmp_path / "mask.png", numbers, [(BLACK, RED, GREEN)[k] for k in order])
    np.testing.assert_array_equal(read_mask(path), MASK)


@pytest.mark.parametrize("quantised", [Image.Quantize.MEDIANCUT, Image.Quantize.FASTOCTREE, Image.Quantize.MAXCOVERAGE])
def test_quantised_davis_colours(tmp_path: Path, quantised: Image.Quantize) -> None:
    image = Image.fromarray(DAVIS_PALETTE[MASK]).quantize(4, method=quantised, dither=Image.Dither.NONE)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), MASK)


def test_white_converted_by_pillow(tmp_path: Path) -> None:
    Image.fromarray(255 * ONE).convert("RGB").convert("P").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ONE)


def test_davis_palette_with_blue_first(tmp_path: Path) -> None:
    """OpenCV's order of channels changes colours, not ids."""
    path = indexed(tmp_path / "mask.png", MASK, [tuple(colour) for colour in DAVIS_PALETTE[:, ::-1].tolist()])
    np.testing.assert_array_equal(read_mask(path), MASK)


def test_colours_that_are_nobodys_say_nothing(tmp_path: Path) -> None:
    """Few dots as well: what a network left of an object."""
    mask = MASK.copy()
    mask[::20, ::20] = 3
    path = indexed(tmp_path / "mask.png", mask, [BLACK, GREEN, (255, 0, 0), (130, 140, 10)])
    np.testing.assert_array_equal(read_mask(path), mask)


def test_white_before_black(tmp_path: Path) -> None:
    path = indexed(tmp_path / "mask.png", 1 - ONE, [WHITE, BLACK])
    np.testing.assert_array_equal(read_mask(path), ONE)
    np.testing.assert_array_equal(read_prompt(path), ONE)
    np.testing.assert_array_equal(read_mask(path, binary=True), ONE)


@pytest.mark.parametrize(
    "colours",
    [
        [BLACK, (236, 95, 103), (249, 145, 87)],  # YouTube-VOS.
        [BLACK, WHITE, (128, 128, 128)],
        [BLACK, (1, 1, 1), (2, 2, 2)],
        [WHITE, (200, 0, 0), (0, 200, 0)],
        [BLACK, BLACK, BLACK],
    ],
    ids=["YouTube-VOS", "greys", "ramp", "on white", "no colours"],
)
def test_other_palettes_leave_the_numbers(tmp_path: Path, colours: list[tuple[int, int, int]]) -> None:
    np.testing.assert_array_equal(read_mask(indexed(tmp_path / "mask.png", MASK, colours)), MASK)


def test_palette_of_old_windows_leaves_the_numbers(tmp_path: Path) -> None:
    """Its first seven colours are DAVIS', 7 and 8 are greys that DAVIS has elsewhere."""
    colours = [tuple(colour) for colour in DAVIS_PALETTE[:7].tolist()] + [(192, 192, 192), (128, 128, 128)]
    mask = np.kron(np.arange(9, dtype=np.uint8).reshape(3, 3), np.ones((8, 8), np.uint8))
    np.testing.assert_array_equal(read_mask(indexed(tmp_path / "mask.png", mask, colours)), mask)


def test_transparent_background_may_have_any_number(tmp_path: Path) -> None:
    path = indexed(tmp_path / "mask.png", np.array([2, 0, 1], np.uint8)[MASK], [RED, GREEN, WHITE])
    with Image.open(path) as image:
        image.save(path, transparency=bytes([255, 255, 0]))
    np.testing.assert_array_equal(read_mask(path), MASK)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: painted(path, MASK, BLACK, RED, GREEN), MASK),
        (lambda path: painted(path, ONE, BLACK, (255, 0, 0)), ONE),
        (lambda path: painted(path, MASK, (0, 0, 0, 255), (*RED, 255), (*GREEN, 255)), MASK),
        (lambda path: painted(path, MASK, (9, 9, 9, 0), (*RED, 255), (*GREEN, 255)), MASK),
        (lambda path: painted(path, ONE, (9, 9, 9, 0), (255, 0, 0, 255)), ONE),
        (lambda path: painted(path, ONE, (9, 9, 9, 0), (255, 255, 255, 255)), ONE),
    ],
    ids=["davis", "red on black", "davis opaque", "davis on transparent", "red on transparent", "white on transparent"],
)
def test_painted_masks_whose_meaning_is_certain(tmp_path: Path, make: Callable[[Path], Path], expected: Mask) -> None:
    path = make(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(path), expected)
    np.testing.assert_array_equal(read_prompt(path), expected)


def converted(path: Path, dither: Image.Dither) -> None:
    Image.fromarray(DAVIS_PALETTE[MASK]).convert("P", dither=dither).save(path)


def dithered_palette(path: Path) -> None:
    other = Image.new("P", (1, 1))
    other.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    Image.fromarray(DAVIS_PALETTE[MASK]).quantize(palette=other).save(path)


def blended_octree(path: Path, colours: int) -> None:
    """Of rising ids 2, 3 and 1, so that the most frequent colours come in another order."""
    mask = np.zeros((90, 130), np.uint8)
    for k, (left, right) in {2: (5, 50), 3: (60, 90), 1: (100, 115)}.items():
        mask[20 : 20 + right - left, left:right] = k
    y, x = np.ogrid[:90, :130]
    mask[(x + 3 * y) % 130 < 25] = 0
    small = Image.fromarray(DAVIS_PALETTE[mask]).resize((83, 57), Image.Resampling.BICUBIC)
    small.quantize(colours, method=Image.Quantize.FASTOCTREE).save(path)


def dithered_black_and_white(path: Path) -> None:
    Image.fromarray(DAVIS_PALETTE[MASK]).convert("1").save(path)


def red_before_black(path: Path) -> None:
    indexed(path, 1 - ONE, [(255, 0, 0), BLACK])


def blended_before_black(path: Path) -> None:
    indexed(path, 31 - blended_numbers(), SHADES[::-1])


def blended_after_black(path: Path) -> None:
    indexed(path, blended_numbers(), SHADES)


SHADES = [(4 * k, 0, 0) for k in range(32)]


def blended_numbers() -> Mask:
    """A disc with a wide smooth edge: numbers 0 to 31, of shades from black to nearly DAVIS' red."""
    y, x = np.ogrid[:90, :90]
    disc = (np.hypot(y - 45, x - 45) < 30).astype(np.uint8) * 31
    return np.array(Image.fromarray(disc).resize((61, 61), Image.Resampling.BICUBIC))


def smooth_painted(path: Path) -> None:
    Image.fromarray(DAVIS_PALETTE[MASK]).resize((100, 75), Image.Resampling.BILINEAR).save(path)


def red_on_white(path: Path) -> None:
    painted(path, ONE, WHITE, (255, 0, 0))


def half_transparent(path: Path) -> None:
    painted(path, ONE, (0, 0, 0, 0), (255, 0, 0, 128))


def black_on_transparent(path: Path) -> None:
    painted(path, ONE, (255, 255, 255, 0), (0, 0, 0, 255))


def two_colours_of_nobody(path: Path) -> None:
    painted(path, MASK, BLACK, (255, 0, 0), (0, 255, 0))


def greys_for_objects(path: Path) -> None:
    Image.fromarray(np.array([0, 128, 255], np.uint8)[MASK]).save(path)


def transparent_object(path: Path) -> None:
    Image.fromarray(MASK).save(path, transparency=1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (dithered_palette, r"mask\.png is dithered or blended.* without dithering and smooth edges"),
        (lambda path: converted(path, Image.Dither.FLOYDSTEINBERG), r"colours of its palette contradict its numbers"),
        (lambda path: converted(path, Image.Dither.NONE), r"contradict its numbers .*28 \(0, 153, 0\)\); paint each"),
        (lambda path: blended_octree(path, 8), r"dithered or blended|contradict its numbers"),
        (lambda path: blended_octree(path, 4), r"contradict its numbers"),
        (dithered_black_and_white, r"mask\.png is dithered or blended.* without dithering and smooth edges"),
        (red_before_black, r"colours of its palette contradict its numbers \(0 \(255, 0, 0\), 1 black\); paint each"),
        (blended_before_black, r"colours of its palette contradict its numbers .*; paint each"),
        (blended_after_black, r"is dithered or blended"),
        (smooth_painted, r"different colours and no palette \(RGB\).*; paint each"),
        (red_on_white, r"2 different colours and no palette \(RGB\).*; paint each"),
        (half_transparent, r"2 different colours and no palette \(RGBA\).*; paint each"),
        (black_on_transparent, r"2 different colours and no palette \(RGBA\).*; paint each"),
        (two_colours_of_nobody, r"3 different colours and no palette \(RGB\).*; paint each"),
        (greys_for_objects, r"shows objects as greys \(0, 128, 255, \.\.\); store 1, 2"),
        (transparent_object, r"shows id 1 as transparent; save it without"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_picture_that_is_no_mask_is_refused(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / "mask.png")
    for read in (read_mask, read_prompt):
        with pytest.raises(BadMask, match=says) as caught:
            read(tmp_path / "mask.png")
        assert "\n" not in str(caught.value)


def test_thin_and_few_pixels_are_not_dithering(tmp_path: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[30, 5:75] = 1
    mask[5:55, 40] = 1
    mask[::12, ::12] = 1
    Image.fromarray(mask.astype(bool)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


def renumber(results: Path) -> None:
    for path in results.rglob("*.png"):
        mask = read_mask(path)
        indexed(path, 2 - mask, [GREEN, RED, BLACK])


def test_renumbered_results(davis: Path, tmp_path: Path) -> None:
    """They score as what they show. A server reads their numbers: doctor and submit say so."""
    from vos_shared.datasets import davis2017

    results = tmp_path / "results"
    for path in (davis / "Annotations/480p").rglob("*.png"):
        target = results / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(target, read_mask(path))
    assert examine(results).problems == []
    renumber(results)
    scores = evaluate("davis2017", davis2017(davis)[:1], results)
    assert [item.measures["J-Mean"] for item in scores.items.values()] == [1.0, 1.0]
    assert [problem for problem in examine(results).problems if "its numbers are others" in problem] == [
        f"{name} {frames}: only its colours show the ids, its numbers are others; other programs read those: "
        "write the masks again"
        for name, frames in (("cat", "00000-00004"), ("dog", "00000-00002"))
    ]
    with pytest.raises(BadResults, match=r"2 problems: cat .*: only its colours show the ids, its numbers are others"):
        write_submission("davis2017", wanted_masks("davis2017", davis), results, tmp_path / "all.zip")
