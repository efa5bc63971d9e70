"""Saliency measures: equal to their definitions, and properties for any masks."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import convolve, distance_transform_edt, gaussian_filter

from vos_shared.metrics import saliency
from vos_shared.metrics.saliency import SALIENCY_MEASURES, Saliency, saliency_of

Array = npt.NDArray[Any]
EPS = np.spacing(1.0)


def naive_scaled(prediction: Array) -> Array:
    p = prediction.astype(np.float64)
    if p.min() == p.max():
        return np.clip(p / (255 if prediction.dtype == np.uint8 else 1), 0, 1)
    scaled: Array = (p - p.min()) / (p.max() - p.min())
    return scaled


def naive_f(g: Array, binary: Array) -> float:
    hits = int((g & binary).sum())
    if hits == 0:
        return 0.0
    precision, recall = hits / binary.sum(), hits / g.sum()
    return float(1.3 * precision * recall / (0.3 * precision + recall))


def naive_e(g: Array, binary: Array) -> float:
    """Pixel by pixel, as in the paper."""
    if not g.any():
        enhanced = 1.0 - binary
    elif g.all():
        enhanced = binary * 1.0
    else:
        a, b = g - g.mean(), binary - binary.mean()
        aligned = 2 * a * b / (a * a + b * b + EPS)
        enhanced = (aligned + 1) ** 2 / 4
    return float(enhanced.sum() / max(g.size - 1, 1))


def naive_object(values: Array) -> float:
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    return float(2 * values.mean() / (values.mean() ** 2 + 1 + deviation + EPS))


def naive_ssim(g: Array, p: Array) -> float:
    n = max(g.size - 1, 1)
    x, y = p.mean(), g.mean()
    sx, sy, sxy = ((p - x) ** 2).sum() / n, ((g - y) ** 2).sum() / n, ((p - x) * (g - y)).sum() / n
    if g.min() == g.max() or p.min() == p.max():  # Exactly zero, without rounding errors.
        return float(g.min() == g.max() and p.min() == p.max())
    return float(4 * x * y * sxy / ((x * x + y * y) * (sx + sy) + EPS))


def naive_s(g: Array, p: Array) -> float:
    if not g.any():
        return float(1 - p.mean())
    if g.all():
        return float(p.mean())
    objects = g.mean() * naive_object(p[g]) + (1 - g.mean()) * naive_object(1 - p[~g])
    y, x = np.argwhere(g).mean(axis=0)
    row, column = math.floor(y + 0.5) + 1, math.floor(x + 0.5) + 1
    regions = 0.0
    for rows in (slice(None, row), slice(row, None)):
        for columns in (slice(None, column), slice(column, None)):
            part = g[rows, columns]
            if part.size:
                regions += part.size / g.size * naive_ssim(part.astype(float), p[rows, columns])
    return float(max(0.5 * objects + 0.5 * regions, 0.0))


def naive_weighted_f(g: Array, p: Array) -> float:
    if not g.any():
        return 0.0
    distance, (rows, columns) = distance_transform_edt(~g, return_indices=True)
    error = np.abs(p - g)
    copied = np.where(g, error, error[rows, columns])
    y, x = np.mgrid[-3:4, -3:4]
    gauss = np.exp(-(x * x + y * y) / 50)
    smooth = convolve(copied, gauss / gauss.sum(), mode="constant", cval=0)
    weighted = np.where(g & (smooth < error), smooth, error)
    weighted *= np.where(g, 1, 2 - np.exp(np.log(0.5) / 5 * distance))
    hits, false = g.sum() - weighted[g].sum(), weighted[~g].sum()
    recall, precision = 1 - weighted[g].mean(), hits / (hits + false + EPS)
    return float(2 * recall * precision / (recall + precision + EPS))


def naive(truth: Array, prediction: Array) -> dict[str, Any]:
    g, p = truth.astype(bool), naive_scaled(prediction)
    levels = np.floor(255 * p + 1e-4)
    adaptive = p >= min(2 * p.mean(), 1) * (1 - 1e-9)
    return {
        "mae": np.abs(p - g).mean(),
        "f": [naive_f(g, levels >= t) for t in range(256)],
        "adaptive_f": naive_f(g, adaptive),
        "s": naive_s(g, p),
        "e": [naive_e(g, levels >= t) for t in range(256)],
        "adaptive_e": naive_e(g, adaptive),
        "weighted_f": naive_weighted_f(g, p),
    }


def require_same(truth: Array, prediction: Array, tolerance: float = 2e-6) -> None:
    found = saliency_of(truth, prediction)
    for name, value in naive(truth, prediction).items():
        np.testing.assert_allclose(getattr(found, name), value, atol=tolerance, err_msg=name)


def blob(height: int, width: int, seed: int, size: float = 0.3) -> tuple[Array, Array]:
    """A true mask of several parts and a soft mask that resembles it."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=(height, width)), 0.06 * width)
    truth = field > np.quantile(field, 1 - size)
    return truth, gaussian_filter(truth + random.normal(0, 0.5, truth.shape), 1.5)


@pytest.mark.parametrize("size", [0.005, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_measures_are_their_definitions(seed: int, size: float) -> None:
    truth, soft = blob(60 + seed, 85, seed, size)
    # float64 in the test and float32 in ours may differ at thresholds, so the same values go in as 255ths.
    require_same(truth, np.round(255 * np.clip(soft, 0, 1)).astype(np.uint8))


def test_an_object_of_several_strips() -> None:
    truth, soft = blob(200, 60, 1, 0.5)
    rows = np.flatnonzero(truth.any(axis=1))
    assert np.ptp(rows) > 2 * saliency._STRIP
    require_same(truth, np.round(255 * np.clip(soft, 0, 1)).astype(np.uint8))


def test_a_small_object_in_a_large_image() -> None:
    truth = np.zeros((300, 310), bool)
    truth[5:9, 3:8] = True
    random = np.random.default_rng(0)
    require_same(truth, random.integers(0, 256, truth.shape, np.uint8))


@pytest.mark.parametrize(
    "truth",
    [
        np.zeros((5, 6), bool),
        np.ones((5, 6), bool),
        np.eye(6, dtype=bool),
        np.arange(30).reshape(5, 6) == 29,
        np.arange(30).reshape(5, 6) == 0,
        np.ones((1, 1), bool),
        np.arange(7).reshape(1, 7) > 3,
        np.arange(7).reshape(7, 1) > 5,
    ],
    ids=["empty", "full", "diagonal", "last pixel", "first pixel", "one pixel", "row", "column"],
)
@pytest.mark.parametrize("kind", ["random", "zero", "one", "half", "truth", "inverse"])
def test_extremes_are_their_definitions(truth: Array, kind: str) -> None:
    prediction = {
        "random": np.random.default_rng(1).integers(0, 256, truth.shape, np.uint8),
        "zero": np.zeros(truth.shape, np.uint8),
        "one": np.full(truth.shape, 255, np.uint8),
        "half": np.full(truth.shape, 128, np.uint8),
        "truth": truth.astype(np.uint8) * 255,
        "inverse": (~truth).astype(np.uint8) * 255,
    }[kind]
    require_same(truth, prediction)


masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(np.uint8, shape))
)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_small_masks_are_their_definitions(pair: tuple[Array, Array]) -> None:
    require_same(*pair, tolerance=2e-5)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_measures_lie_between_0_and_1(pair: tuple[Array, Array]) -> None:
    measures = saliency_of(*pair).measures
    assert tuple(measures) == SALIENCY_MEASURES
    for name, value in measures.items():
        assert -1e-9 <= value <= (pair[0].size / max(pair[0].size - 1, 1) if name.endswith("E") else 1) + 1e-6, name


@given(masks)
@settings(max_examples=40, deadline=None)
def test_flipping_both_masks_changes_no_area_measure(pair: tuple[Array, Array]) -> None:
    truth, soft = pair
    ours, flipped = saliency_of(truth, soft), saliency_of(truth[:, ::-1], soft[:, ::-1])
    np.testing.assert_allclose(flipped.f, ours.f)
    np.testing.assert_allclose(flipped.e, ours.e)
    assert flipped.mae == pytest.approx(ours.mae)


@given(masks, st.floats(0.25, 4), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_scale_and_offset_of_a_soft_mask_do_not_matter(pair: tuple[Array, Array], scale: float, offset: float) -> None:
    truth, soft = pair
    if soft.min() == soft.max():
        return
    ours, scaled = saliency_of(truth, soft), saliency_of(truth, soft * scale + offset)
    assert scaled.mae == pytest.approx(ours.mae, abs=1e-5)
    assert scaled.weighted_f == pytest.approx(ours.weighted_f, abs=1e-5)


def test_the_truth_itself_is_perfect() -> None:
    truth, _ = blob(50, 70, 4)
    measures = saliency_of(truth, truth.astype(np.float32)).measures
    assert measures["MAE"] == 0
    for name in ("maxF", "adaptiveF", "S", "weightedF"):
        assert measures[name] == pytest.approx(1, abs=1e-6), name
    assert measures["maxE"] == pytest.approx(truth.size / (truth.size - 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_value_at_the_adaptive_threshold_is_predicted(dtype: type[np.generic]) -> None:
    """Twice the mean of these masks, scaled, is one of their values."""
    for value, values in (
        (121, [36, 79, 36, 7, 17, 121, 138, 28, 4, 128, 128, 28]),
        (177, [100, 51, 182, 37, 73, 177, 28, 94, 66, 126, 193, 103]),
    ):
        prediction = np.array(values, np.uint8).reshape(3, 4)
        measures = saliency_of(prediction >= value, prediction.astype(dtype))
        assert measures.adaptive_f == pytest.approx(1)
        assert measures.adaptive_e == pytest.approx(12 / 11)


def test_levels_of_an_image_file_are_its_values() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    truth = values >= 100
    for prediction in (values, (values / 255).astype(np.float32), values / 255):
        f = saliency_of(truth, prediction).f
        assert int(np.argmax(f)) == 100
        assert f[100] == pytest.approx(1)


def test_a_data_set_has_the_mean_of_its_images() -> None:
    images = [saliency_of(*blob(40, 50, seed)) for seed in range(3)]
    total = Saliency()
    for image in images:
        total.add(image)
    found = total.result()
    assert found["S"] == pytest.approx(np.mean([image.s for image in images]))
    assert found["meanF"] == pytest.approx(np.mean([image.f.mean() for image in images]))
    assert found["maxF"] == pytest.approx(np.max(np.mean([image.f for image in images], axis=0)))
    assert found["maxF"] <= np.mean([image.f.max() for image in images])


def test_what_cannot_be_scored_is_refused() -> None:
    truth = np.ones((3, 4), bool)
    with pytest.raises(ValueError, match="one size"):
        saliency_of(truth, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="NaN"):
        saliency_of(truth, np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="no image"):
        Saliency().result()
