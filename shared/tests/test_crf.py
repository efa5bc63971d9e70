"""The dense CRF: equals the official post-processing of OSMN, and moves labels to the edges in the picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vos_shared.crf import CRFSettings, refine_labels, refine_probabilities
from vos_shared.errors import MissingExtra


@pytest.fixture(scope="module")
def official() -> Mapping[str, npt.NDArray[np.float32]]:
    pytest.importorskip("pydensecrf.densecrf")
    if "VOS_PARITY" not in os.environ:
        pytest.skip("VOS_PARITY is not set")
    with np.load(Path(os.environ["VOS_PARITY"], "osmn/fixture_preprocess.npz")) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("crf_")}


@pytest.fixture
def frame() -> npt.NDArray[np.uint8]:
    """Three upright stripes, red, green and blue, with a little noise; uint8 [40, 60, 3]."""
    pytest.importorskip("pydensecrf.densecrf")
    noise = np.random.default_rng(0).integers(0, 12, (40, 60, 3), np.uint8)
    noise[:, :20, 0] += 180
    noise[:, 20:40, 1] += 180
    noise[:, 40:, 2] += 180
    return noise


def stripes(first: int = 20, second: int = 40) -> npt.NDArray[np.uint8]:
    """Labels 0, 1, 2 that change at these columns."""
    columns = np.arange(60)
    return np.broadcast_to((columns >= first).astype(np.uint8) + (columns >= second), (40, 60)).astype(np.uint8)


def test_hard_labels_equal_the_official_ones(official: Mapping[str, npt.NDArray[np.float32]]) -> None:
    image, labels = official["crf_image"].astype(np.uint8), (official["crf_prob"] > 0.5).astype(np.uint8)
    refined = refine_labels(image, labels)
    np.testing.assert_array_equal(refined, official["crf_hard"])
    assert (refined != labels).any()


def test_soft_labels_equal_the_official_ones(official: Mapping[str, npt.NDArray[np.float32]]) -> None:
    image, probability = official["crf_image"].astype(np.uint8), official["crf_prob"]
    refined = refine_probabilities(image, np.stack([1 - probability, probability]))
    np.testing.assert_array_equal(refined, official["crf_soft"])


def test_arrays_that_cannot_be_written_to_are_taken(frame: npt.NDArray[np.uint8]) -> None:
    """Frames that were resized are often read-only."""
    labels = stripes(22, 37)
    frame.flags.writeable = labels.flags.writeable = False
    np.testing.assert_array_equal(refine_labels(frame, labels), stripes())


def test_labels_move_to_the_edges_of_the_picture(frame: npt.NDArray[np.uint8]) -> None:
    refined = refine_labels(frame, stripes(22, 37))
    assert refined.dtype == np.uint8
    np.testing.assert_array_equal(refined, stripes())


def test_a_hole_is_filled(frame: npt.NDArray[np.uint8]) -> None:
    labels = stripes()
    labels[18:20, 28:30] = 0
    np.testing.assert_array_equal(refine_labels(frame, labels), stripes())


def test_labels_have_no_order(frame: npt.NDArray[np.uint8]) -> None:
    labels = np.random.default_rng(1).integers(0, 3, (40, 60), np.uint8)
    others = np.array([2, 0, 1], np.uint8)
    np.testing.assert_array_equal(refine_labels(frame, others[labels]), others[refine_labels(frame, labels)])


@pytest.mark.parametrize("others", [[0, 1, 9], [0, 20, 254], [7, 254, 3]])
def test_gaps_between_labels_mean_nothing(frame: npt.NDArray[np.uint8], others: list[int]) -> None:
    labels = np.random.default_rng(1).integers(0, 3, (40, 60), np.uint8)
    ids = np.array(others, np.uint8)
    np.testing.assert_array_equal(refine_labels(frame, ids[labels]), ids[refine_labels(frame, labels)])


def test_labels_are_probabilities_of_nine_tenths(frame: npt.NDArray[np.uint8]) -> None:
    labels = stripes(25, 33)
    probabilities = np.where(np.arange(3)[:, None, None] == labels, 0.9, 0.05).astype(np.float32)
    np.testing.assert_array_equal(refine_probabilities(frame, probabilities), refine_labels(frame, labels))


def test_certain_probabilities_stay(frame: npt.NDArray[np.uint8]) -> None:
    still = CRFSettings(smoothness_weight=0, appearance_weight=0)
    certain = np.eye(3, dtype=np.float32)[stripes(5, 50)].transpose(2, 0, 1)  # Zeros have no logarithm.
    np.testing.assert_array_equal(refine_probabilities(frame, certain, still), stripes(5, 50))


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_everywhere_stays(frame: npt.NDArray[np.uint8], label: int) -> None:
    labels = np.full((40, 60), label, np.uint8)
    refined = refine_labels(frame, labels)
    np.testing.assert_array_equal(refined, labels)
    assert not np.shares_memory(refined, labels)


def test_inputs_stay_and_may_lie_anyhow_in_memory(frame: npt.NDArray[np.uint8]) -> None:
    labels = stripes(22, 37)
    turned = frame[:, ::-1], labels[:, ::-1]
    before = turned[0].copy(), turned[1].copy()
    contiguous = refine_labels(*before)
    np.testing.assert_array_equal(refine_labels(*turned), contiguous)
    for array, copy in zip(turned, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_without_pydensecrf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vos-shared\[crf\]'"):
        refine_labels(np.zeros((40, 60, 3), np.uint8), stripes())
