"""Merging of objects that were segmented one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osmn.merging import merge_sequence, merge_soft_masks
from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadResults
from vos_shared.masks import read_mask, write_mask
from vos_shared.results import ResultsTree
from vos_shared.video import Video


def test_highest_probability_wins_and_ties_go_to_the_lower_id() -> None:
    soft_masks = torch.tensor([[[0.9, 0.5, 0.2, 0.8, 0.6]], [[0.6, 0.5, 0.1, 0.8, 0.7]]])
    np.testing.assert_array_equal(merge_soft_masks(soft_masks, [7, 2]), [[7, 0, 0, 2, 2]])


@pytest.fixture
def sequence(tmp_path: Path) -> VideoSequence:
    """Three frames of 20x30; the first prompts object 1, the second object 10."""
    masks = {}
    for name, key, column in (("00000", 1, 2), ("00001", 10, 20)):
        mask = np.zeros((20, 30), np.uint8)
        mask[5:15, column : column + 6] = key
        masks[name] = tmp_path / f"{name}.png"
        write_mask(masks[name], mask)
    return VideoSequence("clip", Video.open(np.zeros((3, 20, 30, 3), np.uint8)), masks)


def store(folder: Path, key: int, name: str, score: np.ndarray) -> None:
    (folder / str(key)).mkdir(parents=True, exist_ok=True)
    np.save(folder / str(key) / f"{name}.npy", score.astype(np.float32))


def test_ids_are_the_folders_names_and_given_masks_stand_in(sequence: VideoSequence, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    for name in ("00001", "00002"):
        store(scores, 1, name, np.full((10, 15), 0.6))  # Half the frames' size: merged masks are enlarged.
    store(scores, 10, "00002", np.full((10, 15), 0.9))
    (scores / "notes").mkdir()  # Other folders do not matter, nor does the order of 1 and 10 as text.
    merge_sequence(scores, sequence, ResultsTree(tmp_path / "out"))
    first, second, third = (read_mask(tmp_path / "out" / "clip" / f"0000{t}.png") for t in range(3))
    np.testing.assert_array_equal(first, read_mask(sequence.annotations["00000"]))
    given = read_mask(sequence.annotations["00001"])
    np.testing.assert_array_equal(second, np.where(given > 0, given, 1))
    assert (third == 10).all()
    with Image.open(tmp_path / "out" / "clip" / "00002.png") as image:
        assert image.mode == "P"


def test_bad_scores_are_named(sequence: VideoSequence, tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path / "out")
    with pytest.raises(BadResults, match="no soft masks"):
        merge_sequence(tmp_path / "scores", sequence, tree)
    store(tmp_path / "scores", 1, "00001", np.zeros((20, 30)))
    store(tmp_path / "scores", 2, "00001", np.zeros((20, 31)))
    with pytest.raises(BadResults, match="all must be of one size"):
        merge_sequence(tmp_path / "scores", sequence, tree)
    (tmp_path / "scores" / "1" / "00001.npy").write_bytes(b"\x93NUMPY cut")
    with pytest.raises(BadResults, match=r"00001\.npy cannot be read"):
        merge_sequence(tmp_path / "scores", sequence, tree)
    assert not (tmp_path / "out" / "clip").exists()


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_scores_are_probabilities(value: float, sequence: VideoSequence, tmp_path: Path) -> None:
    store(tmp_path / "scores", 1, "00001", np.full((20, 30), value))
    with pytest.raises(BadResults, match=r"00001\.npy has values that are not in 0\.\.1"):
        merge_sequence(tmp_path / "scores", sequence, ResultsTree(tmp_path / "out"))


@pytest.mark.parametrize("key", [0, 255, 300])
def test_scores_belong_to_objects(key: int, sequence: VideoSequence, tmp_path: Path) -> None:
    store(tmp_path / "scores", key, "00001", np.zeros((20, 30)))
    with pytest.raises(BadResults, match=f"soft masks of {key}; ids of objects are 1 to 254"):
        merge_sequence(tmp_path / "scores", sequence, ResultsTree(tmp_path / "out"))
