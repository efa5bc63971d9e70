"""The connected-region-aware filter: the demo's labels to the pixel, and the steps of the paper's version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from spn_instances.craf import DemoFilter, PaperFilter, Regions
from vos_shared.testing import parity_folder


def image_of(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """An image of zeros with filled boxes (top, left, bottom, right, value)."""
    image = np.zeros(size, np.uint8)
    for top, left, bottom, right, value in boxes:
        image[top:bottom, left:right] = value
    return image


@pytest.mark.parametrize("name", [f"syn{number}" for number in range(1, 8)])
def test_synthetic_sequences_have_the_demos_labels(name: str) -> None:
    path = parity_folder("spn-instances") / "fixture_craf_syn.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the official numbers")
    arrays = np.load(path)
    maps, foreground, expected = (arrays[f"{name}_{part}"] for part in ("spn", "fg", "labels"))
    labels = arrays[f"{name}_ann"]
    for soft, inside, truth in zip(maps[1:], foreground[1:], expected[1:], strict=True):
        labels = DemoFilter()(soft, labels, inside > 0)
        np.testing.assert_array_equal(labels, truth)


@pytest.mark.parametrize(("labels", "gated"), [("labels", True), ("labels_nogate", False)])
def test_a_real_sequence_has_the_demos_labels(labels: str, gated: bool) -> None:
    arrays = np.load(parity_folder("spn-instances") / "fixture_craf.npz")
    maps, foreground, expected = arrays["spn"], arrays["fg"], arrays[labels]
    previous = expected[0]
    for soft, inside, truth in zip(maps, foreground, expected[1:], strict=True):
        previous = DemoFilter()(soft, previous, inside > 0 if gated else None)
        np.testing.assert_array_equal(previous, truth)


def plain_selection(soft: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Step A of the demo as its plain loop over regions."""
    labels, count = ndimage.label(soft.T > 30, np.ones((3, 3)))
    regions = [index + 1 == labels.T for index in range(count)]
    jaccard = [float((region & before).sum() / (region | before).sum()) for region in regions]
    largest = max((int(region.sum()) for region in regions), default=0)
    edited, index = soft.copy(), 0
    while regions:
        if max(jaccard) <= 0.01:
            return np.zeros_like(soft)
        if jaccard[index] == max(jaccard):
            if regions[index].sum() / largest > 0.2:
                for other, region in enumerate(regions):
                    if other != index and edited.T[region.T][0] != 255:
                        edited[region] = 0
                return edited
            edited[regions[index]] = 255
            jaccard[index] = 0.0
        index = (index + 1) % len(regions)
    return edited


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.5]))
def test_the_demos_choice_of_regions_is_that_of_its_plain_loop(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    soft = (rng.choice([31, 100, 255], (16, 20)) * (rng.random((16, 20)) < share)).astype(np.uint8)
    soft[4:8, 5:9] = rng.choice([0, 90, 255])
    before = np.zeros((16, 20), np.bool_)
    top, left = rng.integers(0, 14, 2)
    before[top : top + 3, left : left + 3] = True
    expected = plain_selection(soft, before)
    labels = DemoFilter(label_value=1, recovery_area=1000)(soft[None], before.astype(np.uint8))
    np.testing.assert_array_equal(labels, expected > 0)


def test_the_demo_gives_back_regions_of_another_map_to_an_object_that_shrank() -> None:
    # Object 2 has only a corner in its own map; the rest is in the map of object 1, too weak to be labelled.
    soft = np.stack([image_of((5, 5, 25, 25, 250), (5, 40, 25, 55, 60)), image_of((23, 53, 25, 55, 220))])
    previous = image_of((5, 5, 25, 25, 1), (5, 40, 25, 55, 2))
    np.testing.assert_array_equal(DemoFilter()(soft, previous), previous)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_regions_come_in_the_order_of_their_first_pixel_by_columns(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    regions = Regions.of(mask)
    by_column = regions.labels.T.ravel()
    first = [int(np.argmax(by_column == index + 1)) for index in range(len(regions))]
    assert first == sorted(first)
    assert regions.areas.sum() == mask.sum()


@pytest.mark.parametrize("apply", [DemoFilter(), PaperFilter()])
def test_the_region_that_agrees_with_the_previous_frame_is_kept(apply: DemoFilter | PaperFilter) -> None:
    soft = image_of((5, 5, 15, 15, 200), (20, 40, 32, 52, 250))[None]
    labels = apply(soft, image_of((6, 6, 16, 16, 1)))
    np.testing.assert_array_equal(labels, image_of((5, 5, 15, 15, 1)))


@pytest.mark.parametrize("apply", [DemoFilter(), PaperFilter()])
def test_nothing_is_labelled_outside_the_foreground(apply: DemoFilter | PaperFilter) -> None:
    soft = image_of((5, 5, 15, 15, 200))[None]
    foreground = image_of((0, 0, 40, 10, 1)) > 0
    labels = apply(soft, image_of((5, 5, 15, 15, 1)), foreground)
    np.testing.assert_array_equal(labels, image_of((5, 5, 15, 10, 1)))


@pytest.mark.parametrize("apply", [DemoFilter(), PaperFilter()])
def test_the_filter_does_not_change_its_input(apply: DemoFilter | PaperFilter) -> None:
    soft = image_of((5, 5, 15, 15, 200), (20, 40, 22, 42, 250))[None]
    previous = image_of((20, 40, 22, 42, 1))
    copies = soft.copy(), previous.copy()
    apply(soft, previous)
    np.testing.assert_array_equal(soft, copies[0])
    np.testing.assert_array_equal(previous, copies[1])


def test_the_paper_removes_a_covered_object_from_the_region_that_covers_it() -> None:
    soft = np.stack([image_of((5, 5, 25, 25, 250)), image_of((10, 10, 15, 15, 150))])
    labels = PaperFilter()(soft, image_of((5, 5, 25, 25, 1), (10, 10, 15, 15, 2)))
    np.testing.assert_array_equal(labels, image_of((5, 5, 25, 25, 1), (10, 10, 15, 15, 2)))
    demo = DemoFilter()(soft, image_of((5, 5, 25, 25, 1), (10, 10, 15, 15, 2)))
    assert set(np.unique(demo)) == {0, 1}, "the demo does not have this step"


def test_the_paper_recovers_a_lost_object_from_an_unselected_region_of_another_map() -> None:
    # Object 2's own map is empty; object 1's map holds object 2 as a second region.
    soft = np.stack([image_of((5, 5, 15, 15, 200), (20, 40, 30, 50, 180)), image_of()])
    labels = PaperFilter()(soft, image_of((5, 5, 15, 15, 1), (20, 40, 30, 50, 2)))
    np.testing.assert_array_equal(labels, image_of((5, 5, 15, 15, 1), (20, 40, 30, 50, 2)))


def test_objects_that_were_lost_stay_lost_in_the_demo_and_come_back_in_the_paper() -> None:
    soft, nothing = image_of((5, 5, 15, 15, 200))[None], image_of()
    assert not DemoFilter()(soft, nothing).any()
    assert PaperFilter()(soft, nothing).any()
