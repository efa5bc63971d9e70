import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vos_shared import results
from vos_shared.errors import BadMask, BadResults
from vos_shared.masks import read_mask, write_mask
from vos_shared.results import ResultsTree, SequenceWriter, fingerprint, require_masks

FRAMES = ("00000", "00001", "00002")


def mask(value: int = 1) -> np.ndarray:
    return np.full((4, 6), value, np.uint8)


def fill(tree: ResultsTree, name: str = "cat", value: int = 1, inputs: str = "", source: str = "") -> None:
    with tree.writer(name, FRAMES, inputs, source=source) as writer:
        for frame in FRAMES:
            writer.write(frame, mask(value))
        writer.extra({"seconds": 0.5})


def fill_from(masks: dict[str, np.ndarray], writer: SequenceWriter) -> None:
    for frame in FRAMES:
        writer.write(frame, masks[frame])


def value_of(tree: ResultsTree, name: str = "cat") -> int:
    return int(read_mask(tree.folder(name) / "00001.png")[0, 0])


def test_a_finished_sequence_is_complete_and_remembered(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path / "out", settings={"method": "a", "k": 1})
    assert not tree.is_complete("cat", FRAMES)
    fill(tree, inputs="abc")
    again = ResultsTree(tmp_path / "out", settings={"k": 1, "method": "a"})
    assert again.is_complete("cat", FRAMES, "abc")
    record = again.record("cat")
    assert record is not None
    assert record["extra"] == {"seconds": 0.5}
    assert record["settings"] == {"method": "a", "k": 1}


def test_other_settings_or_inputs_or_a_lost_mask_make_it_incomplete(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path, settings={"k": 1})
    fill(tree, inputs="abc")
    assert not ResultsTree(tmp_path, settings={"k": 2}).is_complete("cat", FRAMES, "abc")
    assert not tree.is_complete("cat", FRAMES, "other")
    assert not tree.is_complete("cat", (*FRAMES, "00003"), "abc")
    (tmp_path / "cat" / "00001.png").unlink()
    assert not tree.is_complete("cat", FRAMES, "abc")


def test_masks_appear_together_at_the_end(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path)
    with tree.writer("cat", FRAMES) as writer:
        for frame in FRAMES:
            writer.write(frame, mask())
            assert not tree.folder("cat").exists()
    assert sorted(path.name for path in tree.folder("cat").iterdir()) == [f"{frame}.png" for frame in FRAMES]


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path)
    fill(tree, value=1)
    with pytest.raises(KeyError), tree.writer("cat", FRAMES) as writer:
        fill_from({"00000": mask(2)}, writer)
    assert value_of(tree) == 1
    assert tree.is_complete("cat", FRAMES)
    assert not list((tmp_path / ".partial").iterdir())


def test_new_masks_replace_the_old_ones_wholly(tmp_path: Path) -> None:
    fill(ResultsTree(tmp_path, settings={"k": 1}), value=1)
    tree = ResultsTree(tmp_path, settings={"k": 2})
    with tree.writer("cat", ["00001"]) as writer:
        writer.write("00001", mask(2))
    assert [path.name for path in tree.folder("cat").iterdir()] == ["00001.png"]
    assert value_of(tree) == 2
    assert not list((tmp_path / ".partial").iterdir())


def test_lacking_frames_are_all_named(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path)
    with pytest.raises(BadResults, match=r"2 of 3 .*00000, 00002"), tree.writer("cat", FRAMES) as writer:
        writer.write("00001", mask())
    assert not tree.folder("cat").exists()


def test_frames_and_folders_of_others_are_never_replaced(tmp_path: Path) -> None:
    """For example `--output videos` for the frames in videos/cat."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "00000.png").write_text("a frame of somebody")
    with pytest.raises(BadResults, match="not written as results"):
        fill(ResultsTree(tmp_path))
    assert (tmp_path / "cat" / "00000.png").read_text() == "a frame of somebody"


def test_another_video_of_the_same_name_is_not_replaced(tmp_path: Path) -> None:
    """For example a/frames and b/frames, one after the other, into the same folder."""
    tree = ResultsTree(tmp_path)
    fill(tree, value=1, inputs="a", source="/a/cat")
    with pytest.raises(BadResults, match="holds the masks of /a/cat, not of /b/cat"):
        fill(tree, value=2, inputs="b", source="/b/cat")
    assert value_of(tree) == 1
    fill(tree, value=3, inputs="edited", source="/a/cat")
    fill(tree, value=4, inputs="edited", source="/moved/cat")
    assert value_of(tree) == 4


def test_masks_that_were_corrected_by_hand_are_not_replaced(tmp_path: Path) -> None:
    fill(ResultsTree(tmp_path, settings={"k": 1}), value=1)
    corrected = tmp_path / "cat" / "00001.png"
    write_mask(corrected, np.eye(40, dtype=np.uint8))
    with pytest.raises(BadResults, match="were changed after they were written"):
        fill(ResultsTree(tmp_path, settings={"k": 2}))
    np.testing.assert_array_equal(read_mask(corrected), np.eye(40))
    (tmp_path / "cat" / "00002.png").unlink()
    fill(ResultsTree(tmp_path, settings={"k": 2}), value=3)
    assert value_of(ResultsTree(tmp_path)) == 3


def test_masks_that_vanish_while_they_are_made_are_lacking(tmp_path: Path) -> None:
    """Another run may have removed the partial folder of a run that was suspended for hours."""
    tree = ResultsTree(tmp_path)

    def make_and_lose(writer: SequenceWriter) -> None:
        for frame in FRAMES:
            writer.write(frame, mask())
        next(tmp_path.glob(".partial/*/00000.png")).unlink()

    with pytest.raises(BadResults, match=r"1 of 3 .*00000"), tree.writer("cat", FRAMES) as writer:
        make_and_lose(writer)
    assert not tree.folder("cat").exists()


def test_names_that_are_too_long_are_refused_before_any_work(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path)
    fill(tree, "é" * 120)
    assert tree.is_complete("é" * 120, FRAMES)
    with pytest.raises(BadResults, match="too long"):
        tree.require_ours("é" * 121)


@pytest.mark.parametrize("name", ["..", "../cat", "a/b", "a\\b", "", ".", ".hidden", "a..b", "nul\0"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    tree = ResultsTree(tmp_path / "out")
    with pytest.raises(BadResults, match="cannot name a sequence"):
        fill(tree, name)
    with pytest.raises(BadResults, match="cannot name a sequence"):
        tree.is_complete(name, FRAMES)
    assert not (tmp_path / "out").exists()


def test_what_is_no_mask_or_no_frame_is_refused(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path)
    with pytest.raises(BadResults, match="no frame 00009"), tree.writer("cat", FRAMES) as writer:
        writer.write("00009", mask())
    with pytest.raises(BadMask), tree.writer("cat", FRAMES) as writer:
        writer.write("00000", mask().astype(np.int64))


def test_a_file_in_the_place_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(BadResults, match="a file, not a folder"):
        ResultsTree(tmp_path / "out")


def test_many_writers_share_a_tree(tmp_path: Path) -> None:
    """Processes write different sequences, and one sequence together: the last wins, and it is complete."""
    trees = [ResultsTree(tmp_path, settings={"k": k}) for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for k, tree in enumerate(trees):
            pool.submit(fill, tree, f"own{k}", k + 1)
        shared = [pool.submit(fill, tree, "shared", k + 1) for k, tree in enumerate(trees)]
    assert [future.exception() for future in shared] == [None] * 4
    assert [value_of(tree, f"own{k}") for k, tree in enumerate(trees)] == [1, 2, 3, 4]
    values = {int(read_mask(path)[0, 0]) for path in (tmp_path / "shared").iterdir()}
    assert len(values) == 1


def test_one_writer_at_a_time_exchanges_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the masks of one run could get the record of another."""
    exchange, alone, met = results._exchange, threading.Lock(), []

    def slow(new: Path, target: Path) -> None:
        free = alone.acquire(blocking=False)
        met.append(not free)
        time.sleep(0.1)
        exchange(new, target)
        if free:
            alone.release()

    monkeypatch.setattr(results, "_exchange", slow)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(fill, ResultsTree(tmp_path, settings={"k": k})) for k in range(4)]
    assert [future.exception() for future in done] == [None] * 4
    assert met == [False] * 4


def test_kill_loses_the_running_sequence_only(tmp_path: Path) -> None:
    script = """
        import sys, time, numpy as np
        from vos_shared.results import ResultsTree
        tree = ResultsTree(sys.argv[1])
        for name in ("done", "half"):
            with tree.writer(name, ["00000", "00001"]) as writer:
                writer.write("00000", np.ones((4, 6), np.uint8))
                if name == "half":
                    print("now", flush=True)
                    time.sleep(60)
                writer.write("00001", np.ones((4, 6), np.uint8))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    tree = ResultsTree(tmp_path)
    assert tree.is_complete("done", FRAMES[:2])
    assert not tree.is_complete("half", FRAMES[:2])
    assert not tree.folder("half").exists()
    fill(tree, "half")
    assert tree.is_complete("half", FRAMES)


def test_a_live_run_keeps_its_folder_however_long_a_frame_takes(tmp_path: Path) -> None:
    """Another run on the same folder removes nothing that is being written, however old it is."""
    with ResultsTree(tmp_path).writer("slow", FRAMES) as writer:
        writer.write(FRAMES[0], mask())
        os.utime(writer.folder, (0, 0))
        fill(ResultsTree(tmp_path))
        for name in FRAMES[1:]:
            writer.write(name, mask())
    assert ResultsTree(tmp_path).is_complete("slow", FRAMES)
    assert not list((tmp_path / ".partial").iterdir())


@pytest.mark.parametrize(
    "refusal", [NotImplementedError("FileSystem does not appear to support flock"), OSError(errno.ENOLCK, "No locks")]
)
def test_a_file_system_without_locks_can_be_written_and_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusal

    (tmp_path / ".partial" / "of-another").mkdir(parents=True)
    monkeypatch.setattr("vos_shared.locks.FileLock.acquire", refuse)
    fill(ResultsTree(tmp_path))
    assert ResultsTree(tmp_path).is_complete("cat", FRAMES)
    assert [path.name for path in (tmp_path / ".partial").iterdir()] == ["of-another"]


def test_what_a_killed_run_left_is_removed_by_the_next_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from vos_shared.results import partial_folder\n"
        "from pathlib import Path\n"
        "with partial_folder(Path(sys.argv[1]), 'half') as folder:\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        fill(ResultsTree(tmp_path), "other")
        assert folder.is_dir(), "its process is at work"
        process.send_signal(signal.SIGKILL)
    fill(ResultsTree(tmp_path))
    assert not list((tmp_path / ".partial").iterdir())


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    tree = ResultsTree(tmp_path)
    fill(tree)
    for text in ("", "{", "[]", "null", json.dumps({"finished": None})):
        (tmp_path / ".manifest" / "cat.json").write_text(text)
        assert tree.record("cat") is None
        assert not tree.is_complete("cat", FRAMES)
    fill(tree, value=2)
    assert value_of(tree) == 2


def test_all_missing_masks_are_listed(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "00001.png").touch()
    wanted = {"cat": FRAMES, "dog": ["00000"]}
    require_masks(tmp_path, {"cat": ["00001"]})
    with pytest.raises(BadResults, match=r"lacks 3 masks: cat: 00000, 00002; dog: 00000"):
        require_masks(tmp_path, wanted)
    with pytest.raises(BadResults, match="no such results folder"):
        require_masks(tmp_path / "nowhere", wanted)


def test_fingerprint_ignores_the_order_of_keys_only() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})
