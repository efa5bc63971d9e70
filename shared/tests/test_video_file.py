"""Video files: unusual names, no access to other files, limits of size, times, and shape of pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import Colorspace
from video_files import noise, write_encoding, write_video

from vos_shared.demuxing import LIMIT
from vos_shared.errors import BadVideo
from vos_shared.masks import write_mask
from vos_shared.overlay_video import write_overlay
from vos_shared.video import Video, VideoWriter

NAMES = (
    "2023-05-01T12:30:00.mp4",
    "-i.mp4",
    "pipe:",
    "pipe:0.mp4",
    "concat:a|b.mp4",
    "http:example.mp4",
    "file:a.mp4",
    "clip%03d.mp4",
    "a?b#c&d.mp4",
    "cache:a.mp4",
    "it's 50 % [1].mp4",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_may_look_like_an_address_or_a_pattern(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / "run:1" / name):
        with VideoWriter(path) as writer:
            writer.write(np.full((48, 64, 3), 90, np.uint8))
        (frame,) = Video.open(path)
        assert abs(int(frame.mean()) - 90) < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "run:1"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("self.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nself.m3u8\n#EXT-X-ENDLIST\n"),
        ("endless.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n"),
        ("list.mp4", "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile other.ts\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile other.ts\n"),
        ("session.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\n"),
        ("manifest.mpd", '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n'),
    ],
)
def test_a_list_of_other_files_is_no_video(tmp_path: Path, name: str, content: str) -> None:
    write_video(tmp_path / "other.ts", noise(3))
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadVideo, match=rf"{name} is a list of other files or addresses; give the video file itself"):
        list(Video.open(tmp_path / name))


def test_frames_have_the_limit_that_images_have(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.avi", np.zeros((1, 16, 9008, 3), np.uint8), codec="mjpeg")
    with pytest.raises(BadVideo, match=r"wide\.avi is 9008 wide and 16 high; the limit is 8192 pixels a side"):
        Video.open(path)


def test_a_header_that_understates_the_size_of_frames(tmp_path: Path) -> None:
    """Decoders use the dimensions in the stream."""
    path = write_video(tmp_path / "wide.avi", np.zeros((1, 16, 9008, 3), np.uint8), codec="mjpeg")
    path.write_bytes(path.read_bytes().replace((9008).to_bytes(4, "little"), (64).to_bytes(4, "little")))
    with pytest.raises(BadVideo, match="the limit is 8192 pixels a side"):
        list(Video.open(path))


def test_more_pixels_than_the_limit_are_not_called_damage_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "large.mkv", noise(3), codec="ffv1")
    monkeypatch.setitem(LIMIT, "max_pixels", "100")
    with pytest.raises(BadVideo, match=r"large\.mkv cannot be decoded: .* beyond the limit of 8192 pixels a side"):
        list(Video.open(path))


def test_frames_that_change_their_size_are_found_when_frames_are_counted(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / "a.h264", frames).read_bytes() for frames in (noise(5), noise(5)[:, :, :32])]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(parts))
    for accept in (False, True):
        with pytest.raises(BadVideo, match="changes from 64 wide and 48 high to 32 wide and 48 high at frame 5"):
            len(Video.open(path, accept_damaged=accept))


def drawn(video: Video, folder: Path, fps: float | None = None) -> Video:
    """The overlay video."""
    (folder / "masks" / "v").mkdir(parents=True, exist_ok=True)
    for name in video.frame_names:
        write_mask(folder / "masks" / "v" / f"{name}.png", np.ones(video.size, np.uint8))
    write_overlay(video, folder / "masks" / "v", folder / "drawn.mp4", fps=fps)
    return Video.open(folder / "drawn.mp4")


STAMPS = [0, 100, 200, 300, 1300, 1340, 3000]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_an_overlay_shows_each_frame_when_its_video_does(tmp_path: Path, name: str) -> None:
    video = Video.open(write_video(tmp_path / name, noise(7), stamps=STAMPS))
    assert video.times is not None
    assert [round(1000 * time) for time in video.times[:-1]] == STAMPS
    overlay = drawn(video, tmp_path)
    assert overlay.times == video.times
    with av.open(str(tmp_path / "drawn.mp4")) as container:
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(float(video.times[-1]), abs=0.01)


def test_a_live_recording_has_the_rate_of_its_time_stamps(tmp_path: Path) -> None:
    """Its header has no frame rate, and FFmpeg guesses one frame a millisecond."""
    stamps = [40 * index for index in range(12)]
    path = write_encoding(tmp_path, "vp8_live.webm", noise(), stamps=stamps)
    data = path.read_bytes()
    length = data.index(bytes.fromhex("23e383"))  # DefaultDuration becomes Void.
    path.write_bytes(data[:length] + b"\xec\x85" + data[length + 2 :])
    video = Video.open(path)
    assert video.fps == pytest.approx(25)
    overlay = drawn(video, tmp_path)
    assert overlay.fps == pytest.approx(25)
    assert overlay.times is not None
    assert overlay.times[-1] == Fraction(12, 25)


def test_a_rate_that_is_asked_for_takes_the_place_of_times(tmp_path: Path) -> None:
    video = Video.open(write_video(tmp_path / "a.mp4", noise(7), stamps=STAMPS))
    overlay = drawn(video, tmp_path, fps=10)
    assert overlay.times == tuple(Fraction(index, 10) for index in range(8))


def test_folders_and_arrays_have_no_times(tmp_path: Path) -> None:
    video = Video.open(noise(3))
    assert (video.times, video.pixel_aspect, video.damage) == (None, Fraction(1), "")
    overlay = drawn(video, tmp_path)
    assert overlay.times == tuple(Fraction(index, 24) for index in range(4))


@pytest.mark.parametrize("turn", [0, 90, 180])
def test_an_overlay_has_the_pixels_of_its_video(tmp_path: Path, turn: int) -> None:
    """PAL and anamorphic video has pixels that are not square; rotating the picture rotates them."""
    path = write_video(tmp_path / "a.mp4", noise(3), pixel_aspect=Fraction(64, 45), turn=turn)
    video = Video.open(path)
    expected = Fraction(45, 64) if turn == 90 else Fraction(64, 45)
    assert video.size == ((64, 48) if turn == 90 else (48, 64))
    assert video.pixel_aspect == expected
    assert drawn(video, tmp_path).pixel_aspect == expected


def test_time_stamps_that_run_backwards_are_not_believed(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", noise(5))
    path = tmp_path / "twice.ts"
    path.write_bytes(first.read_bytes() * 2)
    video = Video.open(path, accept_damaged=True)
    assert video.times is None
    assert len(drawn(video, tmp_path)) == len(video)


def write_with_cover(path: Path, frames: np.ndarray) -> Path:
    """A large cover picture, then a video if there are frames, and sound."""
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 256, 256, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        streams: list[tuple[Any, list[Any]]] = [
            (cover, [av.VideoFrame.from_ndarray(np.zeros((256, 256, 3), np.uint8), format="rgb24")])
        ]
        if len(frames):
            video: Any = container.add_stream("libx264", rate=25)
            video.height, video.width = frames.shape[1:3]
            streams.append((video, [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]))
        sound: Any = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        for stream, content in [*streams, (sound, [silence])]:
            for item in [*content, None]:
                container.mux(stream.encode(item))
    return path


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    video = Video.open(write_with_cover(tmp_path / "film.mp4", noise(5)))
    assert (len(video), video.size) == (5, (48, 64))
    with pytest.raises(BadVideo, match=r"song\.mp4 has no video in it, only a cover picture"):
        Video.open(write_with_cover(tmp_path / "song.mp4", noise(0)))


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", noise(3), codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"Q?Q?"))
    with pytest.raises(BadVideo, match=r"no video in it that can be decoded; is it damaged, or of a rare codec\?"):
        Video.open(path)


@pytest.mark.parametrize(("standard", "tag"), [(Colorspace.ITU709, 1), (Colorspace.ITU601, 6)])
def test_colours_are_those_of_their_standard(tmp_path: Path, standard: Colorspace, tag: int) -> None:
    """PyAV 14 to 16 take BT.709 for BT.601, up to 23 levels off; HD video is BT.709."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = (200, 40, 40), (30, 180, 60)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 1
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        for item in (frame.reformat(format="yuv420p", dst_colorspace=standard), None):
            container.mux(stream.encode(item))
    decoded = next(iter(Video.open(path))).astype(int)
    assert np.abs(decoded[:, [8, 56]] - picture[:, [8, 56]]).max() <= 4
