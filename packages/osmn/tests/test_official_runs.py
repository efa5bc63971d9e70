"""Whole runs compared with the output and scores of the unmodified official scripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from osmn.inference import OSMNSegmenter
from osmn.merging import merge_sequence
from osmn.networks import OSMN
from osmn.settings import InferenceSettings
from vos_shared.datasets import VideoSequence, davis2016, davis2017
from vos_shared.datasets.youtube_objects import youtube_objects
from vos_shared.evaluation import evaluate
from vos_shared.masks import write_mask
from vos_shared.method import ModelInfo
from vos_shared.results import ResultsTree

pytestmark = pytest.mark.usefixtures("all_cores")

INFO = ModelInfo(0, "made in a test", trained=False)
OFFICIAL_SCALE = 0.00787
"""``--scale_value`` of all these runs."""


def segment(osvos: OSMN, sequences: Iterable[VideoSequence], results: Path, *, crf: bool = False) -> None:
    segmenter = OSMNSegmenter(osvos, INFO, InferenceSettings(scale_value=OFFICIAL_SCALE, crf=crf))
    for sequence in sequences:
        segmenter.reset()
        (results / sequence.name).mkdir()
        for frame, (name, prompt) in zip(sequence.video, sequence.prompts(), strict=True):
            write_mask(results / sequence.name / f"{name}.png", segmenter.step(frame, prompt).mask)


def test_probabilities_of_davis_2017(parity: Path, osvos: OSMN) -> None:
    segmenter = OSMNSegmenter(osvos, INFO, InferenceSettings(scale_value=OFFICIAL_SCALE))
    for sequence in davis2017(parity / "e2e" / "DAVIS"):
        segmenter.reset()
        for frame, (name, prompt) in zip(sequence.video, sequence.prompts(), strict=True):
            result = segmenter.step(frame, prompt, soft_masks=True)
            assert result.soft_masks is not None
            for key in range(1, len(result.soft_masks) + 1):
                file = parity / "e2e" / "res2017" / sequence.name / str(key) / f"{name}.npy"
                if file.exists():  # The first frame has no soft mask.
                    np.testing.assert_allclose(result.soft_masks[key - 1], np.load(file), atol=1e-4, rtol=0)


def test_merging_official_scores_gives_the_official_j(parity: Path, tmp_path: Path) -> None:
    sequences = davis2017(parity / "e2e" / "DAVIS")
    for sequence in sequences:
        merge_sequence(parity / "e2e" / "res2017" / sequence.name, sequence, ResultsTree(tmp_path))
    scores = evaluate("davis2017", sequences, tmp_path, progress=False)
    wanted = dict(line.split() for line in (parity / "e2e" / "res2017_iou.txt").read_text().splitlines())
    found = {name.replace("_", "/"): row["J"] for name, row in scores.to_json()["objects"].items()}
    found["all"] = scores.summary["J-Mean"]
    assert found == {name: pytest.approx(float(value), abs=1e-6) for name, value in wanted.items()}


@pytest.mark.parametrize(("crf", "wanted"), [(False, 0.119296), (True, 0.116992)])
def test_j_of_davis_2016(crf: bool, wanted: float, parity: Path, osvos: OSMN, tmp_path: Path) -> None:
    if crf:
        pytest.importorskip("pydensecrf")
    sequences = davis2016(parity / "e2e" / "DAVIS")
    segment(osvos, sequences, tmp_path, crf=crf)
    found = evaluate("davis2016", sequences, tmp_path, progress=False).summary["J-Mean"]
    assert found == pytest.approx(wanted, abs=1e-4)  # A pixel may flip.


def test_mean_iu_of_youtube_objects(parity: Path, osvos: OSMN, tmp_path: Path) -> None:
    sequences = youtube_objects(parity / "e2e" / "YTO")
    segment(osvos, sequences, tmp_path)
    found = evaluate("youtube-objects", sequences, tmp_path, progress=False).summary["J-Mean"]
    assert found == pytest.approx(0.047030, abs=1e-4)
