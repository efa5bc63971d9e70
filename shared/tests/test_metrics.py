"""J and F against their definitions, pixel by pixel, and properties for any masks."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from vos_shared.metrics import contour_accuracy, region_similarity
from vos_shared.metrics.bits import Bits, boundary, count, dilate, pack

BoolMask = npt.NDArray[np.bool_]


def unpack(bits: Bits, width: int) -> BoolMask:
    pixels: BoolMask = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :width].astype(bool)
    return pixels


def plain_boundary(mask: BoolMask) -> BoolMask:
    """Pixels that differ from their right, lower or lower right neighbour; the last row and column are continued."""
    padded = np.pad(mask, (0, 1), mode="edge")
    edge: BoolMask = (mask != padded[1:, :-1]) | (mask != padded[:-1, 1:]) | (mask != padded[1:, 1:])
    return edge


def plain_dilation(mask: BoolMask, radius: float) -> BoolMask:
    return distance_transform_edt(~mask) <= radius if mask.any() else mask


def plain_contour_accuracy(truth: BoolMask, prediction: BoolMask, radius: float) -> float:
    ours, theirs = plain_boundary(truth), plain_boundary(prediction)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = (theirs & plain_dilation(ours, radius)).sum() / theirs.sum()
    recall = (ours & plain_dilation(theirs, radius)).sum() / ours.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@st.composite
def masks(draw: st.DrawFn, amount: int) -> list[BoolMask]:
    """Masks of one size, each empty, full, noise, a few pixels or a box: [amount] x bool [H, W]."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 140))
    noise = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [_mask(draw(st.sampled_from("efnpb")), noise, height, width) for _ in range(amount)]


def _mask(kind: str, noise: np.random.Generator, height: int, width: int) -> BoolMask:
    mask = np.full((height, width), kind == "f")
    if kind in "np":
        mask = noise.random((height, width)) < (0.5 if kind == "n" else 2 / mask.size)
    if kind == "b":
        (top, bottom), (left, right) = (np.sort(noise.integers(0, side + 1, 2)) for side in (height, width))
        mask[top:bottom, left:right] = True
    return mask


@given(masks(1), st.integers(0, 12) | st.integers(60, 140))
def test_packed_operations_are_those_of_the_pixels(drawn: list[BoolMask], radius: int) -> None:
    (mask,) = drawn
    bits, width = pack(mask), mask.shape[1]
    assert count(bits) == mask.sum()
    np.testing.assert_array_equal(unpack(boundary(bits, width), width), plain_boundary(mask))
    np.testing.assert_array_equal(unpack(dilate(bits, radius), width), plain_dilation(mask, radius))


@given(masks(2), st.floats(0.001, 0.99) | st.integers(1, 12))
def test_contour_accuracy_is_its_definition(drawn: list[BoolMask], bound_th: float) -> None:
    truth, prediction = drawn
    radius = bound_th if bound_th >= 1 else math.ceil(bound_th * math.hypot(*truth.shape))
    expected = plain_contour_accuracy(truth, prediction, radius)
    assert contour_accuracy(truth, prediction, bound_th) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_contour_accuracy_is_its_definition_at_the_size_of_davis(seed: int) -> None:
    noise = np.random.default_rng(seed)
    y, x = np.ogrid[:480, :854]
    centre = noise.uniform(0, 1, 2) * (480, 854)
    truth, prediction = (
        np.hypot(y - cy, x - cx) < 100 + 20 * np.sin(7 * np.arctan2(y - cy, x - cx))
        for cy, cx in (centre, centre + noise.normal(0, 8, 2))
    )
    expected = plain_contour_accuracy(truth, prediction, 8)
    assert contour_accuracy(truth, prediction) == pytest.approx(expected, abs=1e-12)


@given(masks(3))
def test_region_similarity_is_intersection_over_union_outside_void(drawn: list[BoolMask]) -> None:
    truth, prediction, void = drawn
    ours, theirs = ({(y, x) for y, x in np.argwhere(mask & ~void)} for mask in (truth, prediction))
    expected = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
    assert region_similarity(truth, prediction, void) == pytest.approx(expected, abs=1e-12)


@given(masks(2))
def test_identical_masks_score_1_and_swapping_changes_nothing(drawn: list[BoolMask]) -> None:
    truth, prediction = drawn
    for measure in (region_similarity, contour_accuracy):
        assert measure(truth, truth) == 1
        assert measure(truth, prediction) == measure(prediction, truth)


@given(masks(2))
def test_region_similarity_does_not_change_when_both_masks_are_mirrored_or_turned(drawn: list[BoolMask]) -> None:
    truth, prediction = drawn
    expected = region_similarity(truth, prediction)
    assert region_similarity(truth[:, ::-1], prediction[:, ::-1]) == expected
    assert region_similarity(truth.T, prediction.T) == expected


@given(masks(3))
def test_what_is_predicted_in_void_does_not_matter(drawn: list[BoolMask]) -> None:
    truth, prediction, void = drawn
    for measure in (region_similarity, contour_accuracy):
        assert measure(truth, prediction | void, void=void) == measure(truth, prediction & ~void, void=void)


def test_an_empty_prediction_scores_0_and_is_right_where_the_truth_is_empty_too() -> None:
    empty, full = np.zeros((20, 30), dtype=bool), np.zeros((20, 30), dtype=bool)
    full[5:15, 5:15] = True
    for measure in (region_similarity, contour_accuracy):
        assert measure(full, empty) == 0
        assert measure(empty, full) == 0
        assert measure(empty, empty) == 1


@pytest.mark.parametrize(("shift", "expected"), [(0, 1), (8, 1), (9, 0)])
def test_boundaries_match_up_to_8_pixels_at_480p(shift: int, expected: float) -> None:
    """Two half planes whose only boundaries are vertical lines, `shift` pixels apart."""
    truth, prediction = np.zeros((2, 480, 854), dtype=bool)
    truth[:, :400] = True
    prediction[:, : 400 + shift] = True
    assert contour_accuracy(truth, prediction) == expected


@pytest.mark.parametrize("measure", [region_similarity, contour_accuracy])
def test_masks_of_different_size_are_refused(measure: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(5, 4\)"):
        measure(np.zeros((4, 5)), np.zeros((5, 4)))
