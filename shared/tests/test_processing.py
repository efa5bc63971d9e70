"""Many videos with damaged ones among them: those that cannot be read are reported, all others are done."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadVideo
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter, Supervision
from vos_shared.processing import mask_output, process
from vos_shared.results import ResultsTree
from vos_shared.training.videos import found_videos
from vos_shared.video import Video


class Everything(Segmenter):
    """Says that all pixels are foreground."""

    info = ModelInfo(0, "none", True)

    def reset(self) -> None:
        """Nothing is kept."""

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        return Segmentation(np.ones(frame.shape[:2], np.uint8))


def frames_in(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (32, 24), (40 * index, 0, 0)).save(folder / f"{index:05d}.png")
    return folder


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoSequence]:
    """Three, the second with a frame that is cut short."""
    folders = [frames_in(tmp_path / "in" / name) for name in ("first", "torn", "last")]
    torn = folders[1] / "00001.png"
    torn.write_bytes(torn.read_bytes()[:60])
    return [VideoSequence(folder.name, Video.open(folder), {}) for folder in folders]


def run(videos: list[VideoSequence], tree: ResultsTree, failed: dict[str, str] | None) -> None:
    process(
        videos,
        Everything(),
        [mask_output(tree)],
        supervision=Supervision.NONE,
        device=torch.device("cpu"),
        failed=None if failed is None else lambda sequence, why: failed.update({sequence.name: str(why)}),
    )


def test_a_damaged_video_is_reported_and_the_others_are_done(videos: list[VideoSequence], tmp_path: Path) -> None:
    """It leaves no results, and is tried again by the next run."""
    tree = ResultsTree(tmp_path / "out", settings={})
    failed: dict[str, str] = {}
    run(videos, tree, failed)
    assert list(failed) == ["torn"]
    assert "00001.png" in failed["torn"]
    assert sorted(path.name for path in tree.root.iterdir() if path.name[0] != ".") == ["first", "last"]
    Image.new("RGB", (32, 24)).save(tmp_path / "in" / "torn" / "00001.png")
    failed.clear()
    run(videos, tree, failed)
    assert not failed
    assert len(list(tree.folder("torn").glob("*.png"))) == 3


def test_without_someone_to_tell_the_error_is_raised(videos: list[VideoSequence], tmp_path: Path) -> None:
    """Videos before the damaged one stay finished; those after it are not begun."""
    tree = ResultsTree(tmp_path / "out", settings={})
    with pytest.raises(BadVideo, match=r"00001\.png"):
        run(videos, tree, None)
    assert tree.folder("first").is_dir()
    assert not tree.folder("last").exists()


def test_video_files_that_cannot_be_decoded_are_left_out(tmp_path: Path) -> None:
    """By name and with the reason; without someone to tell, the error is raised."""
    frames_in(tmp_path / "in" / "good")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video" * 50)
    failed: dict[str, str] = {}

    def note(path: Path, why: BadVideo) -> None:
        failed[path.name] = str(why)

    found = found_videos([tmp_path / "in"], tmp_path / "run", 24, note)
    assert [video.name for video in found] == ["good"]
    assert list(failed) == ["broken.mp4"]
    assert "broken.mp4" in failed["broken.mp4"]
    assert not list((tmp_path / "run").rglob("*.jpg"))
    with pytest.raises(BadVideo, match=r"broken\.mp4"):
        found_videos([tmp_path / "in"], tmp_path / "run", 24)
