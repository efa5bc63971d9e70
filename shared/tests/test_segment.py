import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import noise, write_video

from vos_shared.errors import BadDataset, BadMask, BadResults, BadVideo, UserError
from vos_shared.masks import read_mask, write_mask
from vos_shared.method import Method, Segmenter, Supervision
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.sequence_loop import segment_sequence
from vos_shared.video import Video, VideoWriter

TESTS = Path(__file__).parent


def arguments(source: Path | str, output: Path, **others: object) -> SegmentArguments:
    return SegmentArguments(source=str(source), output=output, device="cpu", **others)  # type: ignore[arg-type]


def test_a_data_set_is_segmented_into_a_results_tree(davis: Path, copying: Method, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_segment(copying, arguments(davis, out, timing=tmp_path / "t.json"))
    for name, frames in (("cat", 5), ("dog", 3)):
        given = read_mask(davis / "Annotations" / "480p" / name / "00000.png")
        written = sorted((out / name).iterdir())
        assert len(written) == frames
        for path in written:
            np.testing.assert_array_equal(read_mask(path), given)
    times = json.loads((tmp_path / "t.json").read_text())
    assert times["method"] == "copying"
    assert times["sequences"]["cat"]["frames"] == 5
    assert set(times["sequences"]["cat"]["seconds"]) == {"total", "prepare", "decode", "model", "encode"}
    assert times["total"]["frames"] == 8
    assert times["total"]["frames_per_second"] == pytest.approx(8 / times["total"]["seconds"]["total"], rel=1e-3)


def test_films_are_drawn_again_only_for_new_masks(davis: Path, copying: Method, tmp_path: Path) -> None:
    def drawn() -> list[int]:
        run_segment(copying, arguments(davis, tmp_path / "out", overlay=True))
        return [(tmp_path / "out" / f"{name}.mp4").stat().st_mtime_ns for name in ("cat", "dog")]

    first = drawn()
    assert drawn() == first
    write_mask(davis / "Annotations" / "480p" / "dog" / "00000.png", np.ones((40, 56), np.uint8))
    again = drawn()
    assert again[0] == first[0]
    assert again[1] > first[1]


def test_finished_sequences_are_not_computed_again(
    davis: Path, copying: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []

    def run(**others: object) -> list[str]:
        computed.clear()
        run_segment(copying, arguments(davis, tmp_path / "out", **others), layer=others.get("variant"))
        return list(computed)

    original = segment_sequence

    def counting(segmenter: Segmenter, sequence: object, writer: object, **others: object) -> object:
        computed.append(sequence.name)  # type: ignore[attr-defined]
        return original(segmenter, sequence, writer, **others)  # type: ignore[arg-type]

    monkeypatch.setattr("vos_shared.processing.segment_sequence", counting)
    assert run() == ["cat", "dog"]
    assert run() == []
    assert run(resume=False) == ["cat", "dog"]
    assert run(seed=1) == ["cat", "dog"]
    assert run(seed=1) == []
    write_mask(davis / "Annotations" / "480p" / "dog" / "00000.png", np.ones((40, 56), np.uint8))
    assert run(seed=1) == ["dog"]
    (tmp_path / "out" / "cat" / "00002.png").unlink()
    assert run(seed=1) == ["cat"]


def test_torchrun_deals_the_sequences_out(
    davis: Path, copying: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, there in (("0", {"cat"}), ("1", {"cat", "dog"})):
        monkeypatch.setenv("RANK", rank)
        run_segment(copying, arguments(davis, tmp_path / "out", timing=tmp_path / "t.json"))
        assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == there
    assert json.loads((tmp_path / "t-rank1.json").read_text())["sequences"].keys() == {"dog"}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video file of four frames, 40 high, 56 wide."""
    with VideoWriter(tmp_path / "film.mp4", fps=10) as writer:
        for t in range(4):
            writer.write(np.full((40, 56, 3), 50 * t, np.uint8))
    return tmp_path / "film.mp4"


def first_mask(path: Path, value: int = 2, size: tuple[int, int] = (40, 56)) -> Path:
    mask = np.zeros(size, np.uint8)
    mask[5:15, 6:20] = value
    write_mask(path, mask)
    return path


def test_a_video_file_with_a_first_mask(film: Path, copying: Method, tmp_path: Path) -> None:
    prompt = first_mask(tmp_path / "prompt.png")
    run_segment(copying, arguments(film, tmp_path / "out", prompt=prompt, overlay=True))
    masks = sorted((tmp_path / "out" / "film").iterdir())
    assert [path.name for path in masks] == ["00000.png", "00001.png", "00002.png", "00003.png"]
    np.testing.assert_array_equal(read_mask(masks[3]), read_mask(prompt))
    drawn = Video.open(tmp_path / "out" / "film.mp4")
    assert len(drawn) == 4
    assert drawn.fps == 10
    last = list(drawn)[-1].astype(int)
    assert abs(last[30, 40] - 150).max() < 20, "background as it was"
    assert abs(last[10, 12] - 150).max() > 30, "the object coloured"


def test_a_damaged_video_file_is_segmented_on_request_only(copying: Method, tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mkv", noise())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    options = {"prompt": first_mask(tmp_path / "prompt.png", size=(48, 64)), "overlay": True}
    with pytest.raises(BadVideo, match=r"it ends early, after \d frames; is it .* cut short\? --accept-damaged takes"):
        run_segment(copying, arguments(path, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()
    run_segment(
        copying, arguments(path, tmp_path / "out", accept_damaged=True, soft_masks=tmp_path / "soft", **options)
    )
    count = len(list((tmp_path / "out" / "film").iterdir()))
    assert 3 < count < 12
    assert len(Video.open(tmp_path / "out" / "film.mp4")) == count
    for tree in ("out", "soft"):
        record = json.loads((tmp_path / tree / ".manifest" / "film.json").read_text())
        assert record["extra"]["damage"] == f"it ends early, after {count} frames"


def test_an_output_folder_may_look_like_an_address(film: Path, copying: Method, tmp_path: Path) -> None:
    out = tmp_path / "run:1"
    run_segment(copying, arguments(film, out, prompt=first_mask(tmp_path / "prompt.png"), overlay=True))
    assert len(Video.open(out / "film.mp4")) == 4


def test_results_say_what_decoded_their_frames(film: Path, copying: Method, tmp_path: Path) -> None:
    run_segment(copying, arguments(film, tmp_path / "out", prompt=first_mask(tmp_path / "prompt.png")))
    record = json.loads((tmp_path / "out" / ".manifest" / "film.json").read_text())
    assert record["settings"]["decoder"] == f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"


def test_a_folder_and_a_glob_of_frames(davis: Path, copying: Method, tmp_path: Path) -> None:
    frames = davis / "JPEGImages" / "480p" / "cat"
    prompt = first_mask(tmp_path / "prompt.png")
    for source, count in ((frames, 5), (f"{frames}/0000[0-2].jpg", 3)):
        run_segment(copying, arguments(source, tmp_path / f"out{count}", prompt=prompt))
        assert len(list((tmp_path / f"out{count}" / "cat").iterdir())) == count


def test_masks_of_a_folder_prompt_objects_where_they_appear(film: Path, copying: Method, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    first_mask(tmp_path / "prompts" / "00000.png", 1)
    late = np.zeros((40, 56), np.uint8)
    late[30:, 40:] = 2
    write_mask(tmp_path / "prompts" / "00002.png", late)
    run_segment(copying, arguments(film, tmp_path / "out", prompt=tmp_path / "prompts"))
    present = [set(np.unique(read_mask(path))) for path in sorted((tmp_path / "out" / "film").iterdir())]
    assert present == [{0, 1}, {0, 1}, {0, 1, 2}, {0, 1, 2}]
    write_mask(tmp_path / "prompts" / "00009.png", late)
    with pytest.raises(BadMask, match=r"00009\.png.*no frame of this name"):
        run_segment(copying, arguments(film, tmp_path / "out", prompt=tmp_path / "prompts"))


def test_a_black_and_white_prompt_is_object_1(film: Path, copying: Method, tmp_path: Path) -> None:
    drawn = np.zeros((40, 56), np.uint8)
    drawn[10:20] = 255
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    run_segment(copying, arguments(film, tmp_path / "out", prompt=tmp_path / "drawn.png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "film" / "00001.png"), drawn // 255)


def test_white_in_a_palette_is_object_1_as_well(film: Path, copying: Method, tmp_path: Path) -> None:
    mask = np.zeros((40, 56), np.uint8)
    mask[5:20, 5:20] = 255
    write_mask(tmp_path / "m.png", mask)
    run_segment(copying, arguments(film, tmp_path / "out", prompt=tmp_path / "m.png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "film" / "00000.png"), mask // 255)


def test_a_data_set_whose_masks_are_empty(davis: Path, copying: Method, tmp_path: Path) -> None:
    for path in (davis / "Annotations" / "480p" / "dog").iterdir():
        write_mask(path, np.zeros((40, 56), np.uint8))
    with pytest.raises(UserError, match="the masks of dog hold no object"):
        run_segment(copying, arguments(davis, tmp_path / "out"))


def test_bad_prompts_are_told_apart(film: Path, copying: Method, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    small = first_mask(tmp_path / "small.png", size=(30, 56))
    empty = first_mask(tmp_path / "empty.png", 0)
    Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(random.integers(0, 256, (40, 56), np.uint8)).save(tmp_path / "blended.png")
    Image.fromarray(np.full((40, 56), 300, np.uint16)).save(tmp_path / "large.png")
    for prompt, message in (
        (small, "56 wide and 30 high"),
        (empty, "holds no object"),
        (tmp_path / "rgb.png", "different colours"),
        (tmp_path / "blended.png", "different values"),
        (tmp_path / "large.png", "above 255"),
        (tmp_path / "nowhere.png", "does not exist"),
        (film, "mask"),
    ):
        with pytest.raises(BadMask, match=message) as caught:
            run_segment(copying, arguments(film, tmp_path / "out", prompt=prompt))
        assert str(prompt) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_prompts_where_there_must_and_must_not_be_one(davis: Path, film: Path, copying: Method, tmp_path: Path) -> None:
    prompt = first_mask(tmp_path / "prompt.png")
    with pytest.raises(UserError, match="add --prompt"):
        run_segment(copying, arguments(film, tmp_path / "out"))
    with pytest.raises(UserError, match="leave out --prompt"):
        run_segment(copying, arguments(davis, tmp_path / "out", prompt=prompt))
    alone = Method("alone", "", "", Supervision.NONE, "copying:load")
    with pytest.raises(UserError, match="takes no mask"):
        run_segment(alone, arguments(film, tmp_path / "out", prompt=prompt))
    run_segment(alone, arguments(film, tmp_path / "out"))


def test_bad_input_is_named_before_any_work(davis: Path, copying: Method, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadVideo, match="nowhere"):
        run_segment(copying, arguments(tmp_path / "nowhere", out))
    with pytest.raises(BadDataset, match="not a path"):
        run_segment(copying, arguments(davis, out, sequences=("../cat",)))
    with pytest.raises(UserError, match="device"):
        run_segment(copying, arguments(davis, out).__class__(source=str(davis), output=out, device="gpu"))
    out.touch()
    with pytest.raises(BadResults, match="a file, not a folder"):
        run_segment(copying, arguments(davis, out))


def test_a_broken_frame_costs_its_own_sequence_only(davis: Path, copying: Method, tmp_path: Path) -> None:
    broken = davis / "JPEGImages" / "480p" / "dog" / "00002.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(BadVideo, match=r"dog/00002\.jpg"):
        run_segment(copying, arguments(davis, tmp_path / "out"))
    assert len(list((tmp_path / "out" / "cat").iterdir())) == 5
    assert not (tmp_path / "out" / "dog").exists()


def test_frames_are_never_replaced_by_masks(davis: Path, copying: Method) -> None:
    """The parent folder of the frames is given as output by mistake."""
    frames = davis / "JPEGImages" / "480p" / "cat"
    before = sorted(frames.iterdir())
    prompt = davis / "Annotations" / "480p" / "cat" / "00000.png"
    with pytest.raises(BadResults, match="choose another output folder"):
        run_segment(copying, arguments(frames, frames.parent, prompt=prompt))
    assert sorted(frames.iterdir()) == before


def test_soft_masks_and_films_replace_nothing_but_their_like(
    davis: Path, film: Path, copying: Method, tmp_path: Path
) -> None:
    frames, out = davis / "JPEGImages" / "480p", tmp_path / "out"
    with pytest.raises(BadResults, match="choose another output folder"):
        run_segment(copying, arguments(davis, out, soft_masks=frames))
    with pytest.raises(UserError, match="would replace each other"):
        run_segment(copying, arguments(davis, out, soft_masks=tmp_path / "x" / ".." / "out"))
    before = film.read_bytes()
    with pytest.raises(BadResults, match=r"film\.mp4 is there already"):
        run_segment(copying, arguments(film, tmp_path, prompt=first_mask(tmp_path / "m.png"), overlay=True))
    assert len(list((frames / "cat").iterdir())) == 5
    assert film.read_bytes() == before
    assert not out.exists()
    assert not (tmp_path / "film").exists()


def test_places_are_checked_before_the_first_sequence(davis: Path, copying: Method, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "dog").mkdir(parents=True)
    with pytest.raises(BadResults, match="dog is there already"):
        run_segment(copying, arguments(davis, out))
    assert not (out / "cat").exists()


def test_soft_masks_are_those_of_the_masks(davis: Path, copying: Method, tmp_path: Path) -> None:
    def run(seed: int) -> tuple[int, int]:
        run_segment(copying, arguments(davis, tmp_path / "out", soft_masks=tmp_path / "soft", seed=seed))
        files = [tmp_path / "out" / "cat" / "00001.png", tmp_path / "soft" / "cat" / "2" / "00001.npy"]
        return files[0].stat().st_mtime_ns, files[1].stat().st_mtime_ns

    first = run(0)
    np.testing.assert_array_equal(
        np.load(tmp_path / "soft" / "cat" / "2" / "00001.npy"), read_mask(tmp_path / "out" / "cat" / "00001.png") == 2
    )
    assert run(0) == first
    run_segment(copying, arguments(davis, tmp_path / "out", seed=1))  # As if killed before the soft masks were written.
    again = run(1)
    assert again[1] > first[1]
    assert run(1) == again
    with pytest.raises(BadResults, match="cat holds soft masks, which masks would replace"):
        run_segment(copying, arguments(davis, tmp_path / "soft"))
    assert run(1) == again


def test_another_source_of_the_same_name_is_refused(davis: Path, copying: Method, tmp_path: Path) -> None:
    """Two patterns in one folder, and two single files of one folder, as well as two folders of one name."""
    shots = tmp_path / "shots"
    shots.mkdir()
    for camera in ("cam1", "cam2"):
        for index in range(2):
            Image.fromarray(np.full((40, 56, 3), 90 + index, np.uint8)).save(shots / f"{camera}_{index}.png")
    prompts = {}
    for camera in ("cam1", "cam2"):
        prompts[camera] = first_mask(tmp_path / f"{camera}.png", 2)
    run_segment(copying, arguments(f"{shots}/cam1_*.png", tmp_path / "out", prompt=prompts["cam1"]))
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "shots").iterdir()}
    with pytest.raises(BadResults, match=r"holds the masks of .*cam1_\*\.png, not of .*cam2_\*\.png"):
        run_segment(copying, arguments(f"{shots}/cam2_*.png", tmp_path / "out", prompt=prompts["cam2"]))
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "shots").iterdir()} == before
    run_segment(copying, arguments(f"{shots}/cam1_*.png", tmp_path / "out", prompt=prompts["cam1"]))


def test_other_weights_or_another_package_mean_other_masks(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gluing"
    package.mkdir()
    (package / "__init__.py").write_text("from copying import load")
    (package / "shipped.bin").write_bytes(b"1")
    monkeypatch.syspath_prepend(tmp_path)
    method = Method("gluing", "", "", Supervision.FIRST_FRAME, "gluing:load")
    times = []
    for shipped, index in ((b"1", b"1"), (b"1", b"1"), (b"2", b"1"), (b"2", b"2")):
        (package / "shipped.bin").write_bytes(shipped)
        (tmp_path / "model.ckpt-1.index").write_bytes(index)
        run_segment(method, arguments(davis, tmp_path / "out", weights=str(tmp_path / "model.ckpt-1")))
        times.append((tmp_path / "out" / "cat").stat().st_mtime_ns)
    assert times[0] == times[1] < times[2] < times[3]


def test_masks_of_two_kinds_are_not_mixed(film: Path, copying: Method, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    first_mask(tmp_path / "prompts" / "00000.png", 2)
    Image.fromarray(np.eye(40, 56, dtype=np.uint8) * 255).save(tmp_path / "prompts" / "00002.png")
    with pytest.raises(BadMask, match=r"00002\.png is black and white, mask .*00000\.png holds ids"):
        run_segment(copying, arguments(film, tmp_path / "out", prompt=tmp_path / "prompts"))


def test_options_of_data_sets_do_not_go_with_a_video(film: Path, copying: Method, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --split, --resolution"):
        run_segment(copying, arguments(film, tmp_path / "out", split="val", resolution="480p"))
    with pytest.raises(BadDataset, match="no data set is called 'davis2018'"):
        run_segment(copying, arguments(film, tmp_path / "out", dataset="davis2018"))


def command_line(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "copying.py"), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_line_ends_with_2_and_one_line(davis: Path, tmp_path: Path) -> None:
    done = command_line(tmp_path / "nowhere", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"copying: no such video: {tmp_path / 'nowhere'} is neither a file nor a folder\n"
    assert command_line(davis, "--output", tmp_path / "out", "--no-such-option").returncode == 2
    good = command_line(davis, "--output", tmp_path / "out", "--sequences", "dog", "--device", "cpu")
    assert good.returncode == 0, good.stderr
    assert len(list((tmp_path / "out" / "dog").iterdir())) == 3


def test_help_is_quick_because_torch_stays_out(davis: Path) -> None:
    code = (
        "import sys, tyro\n"
        "from vos_shared.segment import SegmentArguments\n"
        "try: tyro.cli(SegmentArguments, args=['--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--prompt" in done.stdout
