"""Bad input through the real command lines: one clear line, exit code 2, and finished results stay."""

from __future__ import annotations

import importlib.metadata
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Compare = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Spoiled:
    """A data set with a fault, and what the message must contain."""

    arguments: tuple[str, ...]
    words: tuple[str, ...]


def frame_of(root: Path, sequence: str, number: int) -> Path:
    return root / "JPEGImages" / "480p" / sequence / f"{number:05d}.jpg"


def mask_of(root: Path, sequence: str, number: int) -> Path:
    return root / "Annotations" / "480p" / sequence / f"{number:05d}.png"


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def no_such_folder(root: Path) -> Spoiled:
    return Spoiled(("--dataset", "davis2017", "--root", str(root / "nowhere")), ("nowhere", "no such folder"))


def no_such_video(root: Path) -> Spoiled:
    return Spoiled(("--video", str(root / "nowhere.mp4")), ("nowhere.mp4", "no such video"))


def sequence_without_masks(root: Path) -> Spoiled:
    shutil.rmtree(mask_of(root, "moving", 0).parent)
    return data_set(root, "masks of moving")


def sequence_with_first_mask_only(root: Path) -> Spoiled:
    for number in range(1, 6):
        mask_of(root, "moving", number).unlink()
    return data_set(root, "masks of at least 3 frames", "moving", "--sequences")


def sequence_with_empty_masks(root: Path) -> Spoiled:
    for number in range(6):
        Image.new("P", (64, 48)).save(mask_of(root, "moving", number))
    return data_set(root, "moving", "no object")


def mask_of_another_size(root: Path) -> Spoiled:
    Image.new("P", (60, 40), 1).save(mask_of(root, "moving", 3))
    return data_set(root, str(mask_of(root, "moving", 3)), "60 wide and 40 high", "64 wide and 48 high")


def rgb_mask(root: Path) -> Spoiled:
    """Two colours, neither of which is marked as background."""
    picture = Image.new("RGB", (64, 48), (200, 30, 40))
    picture.paste((10, 90, 200), (8, 8, 20, 20))
    picture.save(mask_of(root, "moving", 3))
    return data_set(root, str(mask_of(root, "moving", 3)), "2 different colours", "RGB")


def anti_aliased_mask(root: Path) -> Spoiled:
    path = mask_of(root, "moving", 3)
    small = Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 255)
    small.resize((640, 480), Image.Resampling.BICUBIC).resize((64, 48), Image.Resampling.BICUBIC).save(path)
    return data_set(root, str(path), "anti-aliased")


def truncated_jpeg(root: Path) -> Spoiled:
    halve(frame_of(root, "moving", 3))
    return data_set(root, str(frame_of(root, "moving", 3)))


def truncated_png_frame(root: Path) -> Spoiled:
    path = frame_of(root, "moving", 3)
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()
    halve(path.with_suffix(".png"))
    return data_set(root, str(path.with_suffix(".png")))


def truncated_mask(root: Path) -> Spoiled:
    halve(mask_of(root, "moving", 3))
    return data_set(root, str(mask_of(root, "moving", 3)))


def huge_mask(root: Path) -> Spoiled:
    Image.new("1", (13000, 13000)).save(mask_of(root, "moving", 3))
    return data_set(root, str(mask_of(root, "moving", 3)), "13000")


def huge_frame(root: Path) -> Spoiled:
    path = frame_of(root, "moving", 0)
    Image.new("1", (13000, 13000)).save(path.with_suffix(".png"))
    path.unlink()
    return data_set(root, str(path.with_suffix(".png")), "13000")


def mask_id_above_255(root: Path) -> Spoiled:
    ids = np.zeros((48, 64), np.uint16)
    ids[10:20, 10:20] = 300
    Image.fromarray(ids).save(mask_of(root, "moving", 3))
    return data_set(root, str(mask_of(root, "moving", 3)), "300", "255")


def sequence_name_that_leads_out(root: Path) -> Spoiled:
    spoiled = data_set(root, "'../moving'")
    return Spoiled((*spoiled.arguments, "--sequences", "../moving"), spoiled.words)


def listed_name_that_leads_out(root: Path) -> Spoiled:
    (root / "ImageSets" / "2017" / "val.txt").write_text("still\n../../still\n")
    return data_set(root, "'../../still'", "val.txt")


def results_that_lack_frames(root: Path) -> Spoiled:
    folder = root / "results"
    shutil.copytree(root / "Annotations" / "480p", folder)
    lacking = [folder / "still" / "00002.png", folder / "moving" / "00001.png", folder / "moving" / "00004.png"]
    for path in lacking:
        path.unlink()
    spoiled = data_set(root, str(folder), "lacks 3", "still", "00002", "moving", "00001", "00004")
    return Spoiled((*spoiled.arguments, "--results", f"old={folder}"), spoiled.words)


def results_of_another_size(root: Path) -> Spoiled:
    folder = root / "results"
    shutil.copytree(root / "Annotations" / "480p", folder)
    Image.new("P", (60, 40), 1).save(folder / "still" / "00002.png")
    spoiled = data_set(root, str(folder / "still" / "00002.png"), "60 wide")
    return Spoiled((*spoiled.arguments, "--results", f"old={folder}"), spoiled.words)


def first_result_is_damaged(root: Path) -> Spoiled:
    folder = root / "results"
    shutil.copytree(root / "Annotations" / "480p", folder)
    halve(folder / "still" / "00000.png")
    spoiled = data_set(root, str(folder / "still" / "00000.png"), "damaged")
    return Spoiled((*spoiled.arguments, "--results", f"old={folder}"), spoiled.words)


def black_and_white_results_of_video(root: Path) -> Spoiled:
    spoiled = video_with_results(root, "black and white", "store 1 in place of 255")
    path = root / "results" / "moving" / "00003.png"
    Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    return spoiled


def results_of_video_of_another_size(root: Path) -> Spoiled:
    spoiled = video_with_results(root, "60 wide and 40 high", "64 wide and 48 high")
    Image.new("P", (60, 40), 1).save(root / "results" / "moving" / "00003.png")
    return spoiled


def video_with_results(root: Path, *words: str) -> Spoiled:
    """A video and its masks; `words` describe the fault of the mask of frame 3."""
    shutil.copytree(root / "Annotations" / "480p", root / "results")
    video, prompt = frame_of(root, "moving", 0).parent, mask_of(root, "moving", 0)
    given = ("--video", str(video), "--prompt", str(prompt), "--methods", "copy")
    path = root / "results" / "moving" / "00003.png"
    return Spoiled((*given, "--results", f"old={root / 'results'}"), (str(path), *words))


def negative_seed(root: Path) -> Spoiled:
    spoiled = data_set(root, "--seed is -1", "from 0")
    return Spoiled((*spoiled.arguments, "--seed", "-1"), spoiled.words)


def seed_of_more_than_64_bits(root: Path) -> Spoiled:
    spoiled = data_set(root, f"--seed is {2**64}", f"to {2**64 - 1}")
    return Spoiled((*spoiled.arguments, "--seed", str(2**64)), spoiled.words)


def no_workers(root: Path) -> Spoiled:
    spoiled = data_set(root, "--workers is 0", "at least 1")
    return Spoiled((*spoiled.arguments, "--workers", "0"), spoiled.words)


def prompt_of_another_size(root: Path) -> Spoiled:
    prompt = root / "prompt.png"
    Image.new("P", (60, 40), 1).save(prompt)
    video = str(frame_of(root, "moving", 0).parent)
    return Spoiled(("--video", video, "--prompt", str(prompt)), (str(prompt), "60 wide and 40 high"))


def unknown_method(root: Path) -> Spoiled:
    spoiled = data_set(root, "'magic'", "copy", "middle")
    return Spoiled((*spoiled.arguments[:-2], "--methods", "magic"), spoiled.words)


def data_set(root: Path, *words: str) -> Spoiled:
    return Spoiled(("--dataset", "davis2017", "--root", str(root), "--methods", "copy"), words)


SPOILERS = (
    no_such_folder,
    no_such_video,
    sequence_without_masks,
    sequence_with_first_mask_only,
    sequence_with_empty_masks,
    mask_of_another_size,
    rgb_mask,
    anti_aliased_mask,
    truncated_jpeg,
    truncated_png_frame,
    truncated_mask,
    huge_mask,
    huge_frame,
    mask_id_above_255,
    sequence_name_that_leads_out,
    listed_name_that_leads_out,
    results_that_lack_frames,
    results_of_another_size,
    first_result_is_damaged,
    black_and_white_results_of_video,
    results_of_video_of_another_size,
    prompt_of_another_size,
    unknown_method,
    negative_seed,
    seed_of_more_than_64_bits,
    no_workers,
)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_compare(spoil: Callable[[Path], Spoiled], compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    spoiled = spoil(davis_root)
    finished = tmp_path / "out" / "masks" / "copy" / "still" / "00000.png"
    finished.parent.mkdir(parents=True)
    finished.write_bytes(b"of an earlier run")
    is_one_clear_line(compare(*spoiled.arguments), "compare", spoiled.words)
    assert finished.read_bytes() == b"of an earlier run"
    assert not (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "logs" / "copy.log").exists(), "no method has started"


def test_compare_without_jinja2(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "jinja2.py").write_text("raise ModuleNotFoundError")
    is_one_clear_line(compare(*data_set(davis_root).arguments), "compare", ("pip install 'vos-shared[report]'",))
    assert not (tmp_path / "out").exists()


def test_compare_on_a_data_set_that_has_other_measures(compare: Compare, tmp_path: Path) -> None:
    done = compare("--dataset", "saliency", "--root", str(tmp_path))
    is_one_clear_line(done, "compare", ("davis2016 and davis2017", "vos evaluate --dataset"))


def test_compare_to_a_file(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    is_one_clear_line(compare(*data_set(davis_root).arguments), "compare", (f"--output {tmp_path / 'out'}", "folder"))
    assert (tmp_path / "out").read_text() == "mine"


def is_one_clear_line(done: subprocess.CompletedProcess[str], program: str, words: tuple[str, ...]) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{program}: ")
    for word in words:
        assert word in line


class Malice:
    """Runs a command when it is unpickled carelessly."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path, str]]:
        return Path.write_text, (self.trace, "executed")


@pytest.fixture
def malicious_weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"model": Malice(tmp_path / "trace")}, protocol=2))
    return path


def test_pickle_with_code_as_weights(
    compare: Compare, davis_root: Path, malicious_weights: Path, tmp_path: Path
) -> None:
    if not is_installed("dense-ulearn"):
        pytest.skip("dense-ulearn is not installed")
    data = ("--dataset", "davis2017", "--root", davis_root)
    done = compare(*data, "--methods", "copy", "dense-ulearn", "--weights", f"dense-ulearn={malicious_weights}")
    is_one_clear_line(done, "compare", (str(malicious_weights),))
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out" / "masks").exists(), "no method has started"


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


SEGMENT_SPOILERS = (
    sequence_without_masks,
    rgb_mask,
    mask_of_another_size,
    mask_id_above_255,
    huge_mask,
    truncated_jpeg,
    truncated_png_frame,
    sequence_name_that_leads_out,
)


@pytest.mark.parametrize("spoil", SEGMENT_SPOILERS, ids=lambda spoil: spoil.__name__)
def test_segment_of_a_method(spoil: Callable[[Path], Spoiled], davis_root: Path, tmp_path: Path) -> None:
    spoiled = spoil(davis_root)
    only = spoiled.arguments[spoiled.arguments.index("--sequences") :] if "--sequences" in spoiled.arguments else ()
    done = segment(davis_root, "--output", tmp_path / "masks", *only)
    is_one_clear_line(done, "dense-ulearn", spoiled.words)
    assert not (tmp_path / "masks" / "moving").exists(), "what is broken has no result, not half of one"
    if spoil in (truncated_jpeg, truncated_png_frame):
        assert len(list((tmp_path / "masks" / "still").glob("*.png"))) == 6, "what was finished before stays"


def test_weights_of_a_method(davis_root: Path, malicious_weights: Path, tmp_path: Path) -> None:
    done = segment(davis_root, "--output", tmp_path / "masks", "--weights", malicious_weights)
    is_one_clear_line(done, "dense-ulearn", (str(malicious_weights),))
    assert not (tmp_path / "trace").exists()


def segment(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_script("dense-ulearn", "segment", *arguments, "--device", "cpu")


def run_script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        pytest.skip(f"{name} is not installed")
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False, timeout=300)


EVALUATE_SPOILERS = (no_such_folder, results_that_lack_frames, results_of_another_size)


@pytest.mark.parametrize("spoil", EVALUATE_SPOILERS, ids=lambda spoil: spoil.__name__)
def test_evaluation(spoil: Callable[[Path], Spoiled], davis_root: Path) -> None:
    spoiled = spoil(davis_root)
    root = spoiled.arguments[spoiled.arguments.index("--root") + 1]
    done = run_script("vos", "evaluate", "--dataset", "davis2017", "--root", root, "--results", davis_root / "results")
    is_one_clear_line(done, "vos", spoiled.words)
