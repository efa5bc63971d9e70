"""Video files that are damaged or cut short are refused or, if accepted, reported; intact ones never are."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import ENCODINGS, noise, write_encoding, write_video

from vos_shared.errors import BadVideo, DamagedVideo
from vos_shared.video import Video


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    """FFmpeg takes the end of the file as the end of the video."""
    whole = write_encoding(tmp_path, name, noise())
    assert len(Video.open(whole)) == 12
    data = whole.read_bytes()
    for tenth in range(1, 10):
        whole.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(BadVideo, match="is it damaged"):
            len(Video.open(whole))


@pytest.mark.parametrize("name", ["vp8.webm", "vp8_live.webm", "h264.mkv", "h264_sound.mp4", "h264.ts", "mpeg4.avi"])
def test_what_can_be_decoded_is_there_on_request(tmp_path: Path, name: str) -> None:
    path = write_encoding(tmp_path, name, noise())
    whole = list(Video.open(path))
    assert Video.open(path, accept_damaged=True).damage == ""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    with pytest.raises(DamagedVideo, match=rf"{name} cannot be read: .* after \d frames; is it damaged or cut short\?"):
        list(Video.open(path))
    video = Video.open(path, accept_damaged=True)
    frames = list(video)
    assert 4 < len(frames) == len(video) < 12
    assert "after" in video.damage
    np.testing.assert_array_equal(frames[3], whole[3])


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "mpeg4"), ("a.flv", "flv")])
def test_damage_that_the_decoder_conceals_is_told(tmp_path: Path, name: str, codec: str) -> None:
    """FFmpeg conceals missing parts with other frames and marks such frames."""
    path = write_video(tmp_path / name, noise(), codec=codec)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 30, 3):
        data[place] ^= 255
    path.write_bytes(data)
    with pytest.raises(DamagedVideo, match="is it damaged or cut short"):
        len(Video.open(path))
    video = Video.open(path, accept_damaged=True)
    assert len(list(video)) == 12
    assert video.damage


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4", "libx264"])
def test_a_packet_that_a_recording_lost_is_told(tmp_path: Path, codec: str) -> None:
    """The counters of a transport stream show the gap; the decoder need not notice it."""
    path = write_video(tmp_path / "a.ts", noise(), codec=codec)
    data, size = path.read_bytes(), 188
    assert len(list(Video.open(path))) == 12
    of_frames = [place for place in range(0, len(data), size) if data[place + 1] & 31 == 1 and data[place + 2] == 0]
    middle = len(of_frames) // 2
    for place in of_frames[middle : middle + 10]:  # The others hold tables, which are repeated.
        path.write_bytes(data[:place] + data[place + size :])
        with pytest.raises(DamagedVideo, match="is it damaged or cut short"):
            list(Video.open(path))


@pytest.mark.parametrize("name", sorted(ENCODINGS.keys() - {"vp8_live.webm", "gif.gif"}))
def test_a_download_that_broke_off_in_a_file_of_full_length_is_refused(tmp_path: Path, name: str) -> None:
    """The rest is zeros. Live recordings and GIF do not store their length."""
    path = write_encoding(tmp_path, name, noise(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(BadVideo):
        len(Video.open(path))


def test_an_index_that_promises_more_is_believed_where_sizes_and_times_say_nothing(tmp_path: Path) -> None:
    """The data of an MP4 file may reach "to the end of the file", and at a variable rate its duration says little."""
    stamps = [0, 40, 80, 120, 1000, 1040, 3000, 9000]
    path = write_video(tmp_path / "a.mp4", noise(8), stamps=stamps, options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    content = data.index(b"mdat")
    data[content - 4 : content] = bytes(4)
    path.write_bytes(data)
    assert len(Video.open(path)) == 8
    with av.open(str(path)) as container:
        places = sorted(packet.pos for packet in container.demux() if packet.pos is not None)
    path.write_bytes(data[: places[5]])  # Between two packets, so that none is cut.
    with pytest.raises(DamagedVideo, match="ends early"):
        len(Video.open(path))


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_video_of_one_frame_is_whole(tmp_path: Path, name: str) -> None:
    assert len(Video.open(write_encoding(tmp_path, name, noise(1)))) == 1


@pytest.mark.parametrize("name", [name for name in ENCODINGS if "sound" in name])
def test_sound_may_be_longer_or_shorter_than_the_frames(tmp_path: Path, name: str) -> None:
    for seconds in (0.1, 4):
        assert len(Video.open(write_encoding(tmp_path, name, noise(), sound=seconds))) == 12


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_frames_may_be_shown_for_times_of_their_own(tmp_path: Path, name: str) -> None:
    stamps = [0, 40, 80, 120, 1000, 1040, 3000, 9000]
    assert len(Video.open(write_video(tmp_path / name, noise(8), stamps=stamps))) == 8


class Pipe(io.BytesIO):
    """Data that was written to a pipe cannot be changed later."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation


@pytest.mark.parametrize(
    "name", ["h264.mkv", "vp8.webm", "mpeg4.avi", "flv1_sound.flv", "wmv2.wmv", "h264_fragments.mp4"]
)
def test_recordings_that_do_not_tell_their_length_are_whole(tmp_path: Path, name: str) -> None:
    pipe = Pipe()
    path = write_encoding(tmp_path, name, noise(), target=pipe)
    path.write_bytes(pipe.getvalue())
    assert len(Video.open(path)) == 12


@pytest.mark.parametrize("name", ["h264.mkv", "vp8.webm", "gif.gif", "flv1_sound.flv", "mpeg4.avi"])
def test_what_follows_the_last_frame_may_lack_or_be_foreign(tmp_path: Path, name: str) -> None:
    path = write_encoding(tmp_path, name, noise(), sound=0)
    data = path.read_bytes()
    for content in (data[:-1], data + b"appended by somebody" * 20):
        path.write_bytes(content)
        assert len(Video.open(path)) == 12
