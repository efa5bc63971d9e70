"""VideoPCA: the official stages, and what must hold for each of them."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unsup_fg import shot, videopca
from unsup_fg.colours import colour_codes, hsv
from unsup_fg.shot import Shot
from unsup_fg.videopca import ReconstructionError, VideoPCASettings
from vos_shared.errors import UserError
from vos_shared.metrics.region import region_similarity

Array = npt.NDArray[Any]


def all_soft_masks(frames: Array, components: int = 3, device: torch.device | None = None) -> Array:
    return torch.cat(list(videopca.soft_masks(frames, components, device))).cpu().numpy()


class TestOfficialStages:
    """The reference is the group's MATLAB release, run in Octave."""

    def test_error(self, fixture_videopca: dict[str, Array], device: torch.device) -> None:
        error = ReconstructionError.of(Shot(fixture_videopca["frames"], device)).stretched(slice(0, 20))
        np.testing.assert_allclose(error.cpu().numpy(), fixture_videopca["octave_error"], rtol=0, atol=2e-4)

    def test_cue(self, fixture_videopca: dict[str, Array], device: torch.device) -> None:
        error = torch.from_numpy(fixture_videopca["octave_error"]).to(device)
        cue = videopca.foreground_cue(error, videopca.centre_prior(error.shape[1], error.shape[2], device))
        np.testing.assert_array_equal(cue.cpu().numpy(), fixture_videopca["octave_binary"] > 0)

    def test_posterior(self, fixture_videopca: dict[str, Array], device: torch.device) -> None:
        frames = Shot(fixture_videopca["frames"], device)
        colours = videopca.colour_statistics(frames, ReconstructionError.of(frames))
        posterior = colours.posterior_of(slice(0, 20)).cpu().numpy()
        difference = np.abs(posterior - fixture_videopca["octave_posterior"])
        assert (difference > 1e-3).mean() <= 1e-4

    def test_soft_masks(self, fixture_videopca: dict[str, Array], device: torch.device) -> None:
        difference = np.abs(all_soft_masks(fixture_videopca["frames"], device=device) - fixture_videopca["octave_soft"])
        assert (difference > 1e-3).mean() <= 1e-4


class TestSoftMasks:
    def test_a_moving_disc_is_found(self, moving_disc: tuple[Array, Array], device: torch.device) -> None:
        frames, discs = moving_disc
        masks = all_soft_masks(frames, device=device) >= 0.5
        overlaps = [region_similarity(disc, mask) for disc, mask in zip(discs[3:17], masks[3:17], strict=True)]
        assert min(overlaps) > 0.9

    def test_the_range_of_each_frame_is_0_to_1(self, moving_disc: tuple[Array, Array]) -> None:
        masks = all_soft_masks(moving_disc[0])
        np.testing.assert_array_equal(masks.min(axis=(1, 2)), 0)
        np.testing.assert_array_equal(masks.max(axis=(1, 2)), 1)

    def test_the_same_again(self, moving_disc: tuple[Array, Array]) -> None:
        frames = moving_disc[0]
        np.testing.assert_array_equal(all_soft_masks(frames), all_soft_masks(frames))

    def test_frames_in_another_order_give_the_same_masks(self, moving_disc: tuple[Array, Array]) -> None:
        """Nothing in the method depends on the order of the frames."""
        frames, order = moving_disc[0], np.random.default_rng(0).permutation(20)
        difference = np.abs(all_soft_masks(frames[order]) - all_soft_masks(frames)[order])
        assert (difference > 1e-3).mean() < 1e-3

    def test_mirrored_frames_give_mirrored_masks(self, moving_disc: tuple[Array, Array]) -> None:
        frames = moving_disc[0]
        difference = np.abs(all_soft_masks(frames[:, :, ::-1])[..., ::-1] - all_soft_masks(frames))
        assert (difference > 1e-3).mean() < 1e-3

    @pytest.mark.parametrize("frames", [1, 2, 3])
    def test_no_more_frames_than_components_are_all_background(
        self, moving_disc: tuple[Array, Array], frames: int
    ) -> None:
        assert not all_soft_masks(moving_disc[0][:frames]).any()

    def test_black_frames_are_all_background(self) -> None:
        assert not all_soft_masks(np.zeros((12, 20, 30, 3), np.uint8)).any()


class TestReconstructionError:
    @given(pictures=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
    def test_what_the_components_span_has_no_error(self, pictures: int, seed: int) -> None:
        """A static shot, or one that switches among two or three pictures."""
        random = np.random.default_rng(seed)
        shown = random.integers(0, 256, (pictures, 16, 20, 3), dtype=np.uint8)
        frames = shown[random.integers(0, pictures, 12)]
        assert not ReconstructionError.of(Shot(frames)).stretched(slice(0, 12)).any()

    def test_equals_the_rank_k_approximation(self, moving_disc: tuple[Array, Array]) -> None:
        """The reference is a singular value decomposition of the data matrix in double precision."""
        frames = moving_disc[0].astype(np.float64)
        low, high = (reduce(frames, axis=(1, 2, 3), keepdims=True) for reduce in (np.min, np.max))
        data = ((frames - low) / (high - low)).reshape(len(frames), -1)
        data -= data.mean(axis=1, keepdims=True)
        left, values, right = np.linalg.svd(data, full_matrices=False)
        residual = data - (left[:, :2] * values[:2]) @ right[:2]
        expected = np.linalg.norm(residual.reshape(frames.shape), axis=-1)
        error = ReconstructionError.of(Shot(moving_disc[0]), components=2)
        np.testing.assert_allclose(error.distances.read(slice(0, 20)), expected, atol=1e-4)

    def test_tiles_are_the_whole(self, moving_disc: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch) -> None:
        """Results do not depend on how the pixels are divided, also with a remainder."""
        frames = moving_disc[0]
        whole = ReconstructionError.of(Shot(frames)).stretched(slice(0, 20))
        monkeypatch.setattr(shot, "_TILE_VALUES", 1000 * 60)
        monkeypatch.setattr(shot, "_BLOCK_TILES", 3)
        monkeypatch.setattr(videopca, "_GRAM_FRAMES", 7)
        tiled = ReconstructionError.of(Shot(frames)).stretched(slice(0, 20))
        np.testing.assert_allclose(tiled.numpy(), whole.numpy(), rtol=0, atol=1e-4)


def test_strips_are_the_whole(moving_disc: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour codes of a frame do not depend on how it is divided, also with a remainder."""
    frames = Shot(moving_disc[0])
    error = ReconstructionError.of(frames)
    whole = videopca.colour_statistics(frames, error)
    monkeypatch.setattr(shot, "_STRIP_PIXELS", 1000)
    strips = videopca.colour_statistics(frames, error)
    np.testing.assert_array_equal(strips.codes.read(slice(0, 20)), whole.codes.read(slice(0, 20)))


class TestSmooth:
    def test_an_impulse_becomes_the_filter(self) -> None:
        impulse = torch.zeros(1, 31, 41)
        impulse[0, 15, 20] = 1
        offsets = np.arange(-7, 8)
        taps = np.exp(-(offsets**2) / (2 * 5.0**2))
        expected = np.zeros((31, 41))
        expected[8:23, 13:28] = np.outer(taps, taps) / taps.sum() ** 2
        np.testing.assert_allclose(videopca.smooth(impulse)[0].numpy(), expected, atol=1e-7)

    def test_outside_is_zero(self) -> None:
        """A constant falls to less than half towards the border, and to less than a quarter in the corner."""
        smoothed = videopca.smooth(torch.ones(1, 40, 40))[0]
        assert smoothed[20, 20].item() == pytest.approx(1)
        assert 0.5 < smoothed[20, 0].item() < 0.6
        assert smoothed[0, 0].item() == pytest.approx(smoothed[20, 0].item() ** 2)


def test_the_centre_prior_falls_by_a_third_of_the_shorter_side() -> None:
    prior = videopca.centre_prior(31, 61)
    assert prior[15, 30].item() == 1
    sigma = 31 / 3
    assert prior[15, 40].item() == pytest.approx(np.exp(-(10**2) / (2 * sigma**2)))
    np.testing.assert_array_equal(prior.numpy(), prior.flip(0, 1).numpy())


class TestColourCodes:
    # Hue in degrees, saturation and value of the colour by the definition of HSV; bins (hx, hy, v) by hand.
    @pytest.mark.parametrize(
        ("rgb", "bins"),
        [
            ((0, 0, 0), (50, 12, 0)),  # black: no saturation, (0 + 1) / 2 * 99 = 49.5 goes up
            ((1, 1, 1), (50, 12, 9)),
            ((0.5, 0.5, 0.5), (50, 12, 5)),  # 4.5 goes up
            ((1, 0, 0), (99, 12, 9)),  # 0 degrees
            ((0, 1, 0), (25, 22, 9)),  # 120: (cos + 1) / 2 = 0.25, (sin + 1) / 2 = 0.933
            ((0, 0, 1), (25, 2, 9)),  # 240
            ((0, 1, 1), (0, 12, 9)),  # 180
            ((1, 1, 0), (74, 22, 9)),  # 60
            ((1, 0, 1), (74, 2, 9)),  # 300
            ((1, 0.5, 0.5), (74, 12, 9)),  # 0 degrees, half saturated: 0.75 * 99 = 74.25
        ],
    )
    def test_known_colours(self, rgb: tuple[float, float, float], bins: tuple[int, int, int]) -> None:
        code = colour_codes(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)).item()
        assert (code % 100, code // 100 % 25, code // 2500) == bins

    @given(hnp.arrays(np.uint8, (1, 3, 4, 5)))
    def test_hue_saturation_value(self, colours: Array) -> None:
        """The reference is Python's colorsys."""
        values = colours.astype(np.float32) / np.float32(255)
        found = torch.stack(hsv(torch.from_numpy(values)), dim=-1)[0].numpy()
        expected = [[colorsys.rgb_to_hsv(*values[0, :, i, j].tolist()) for j in range(5)] for i in range(4)]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    @given(hnp.arrays(np.uint8, (1, 3, 4, 5)))
    def test_every_colour_has_a_bin(self, colours: Array) -> None:
        frame = np.moveaxis(colours[0], 0, -1)
        _, strip = next(Shot([frame]).strips(slice(0, 1)))
        codes = colour_codes(strip)
        assert ((codes >= 0) & (codes < 25_000)).all()


class TestHysteresis:
    def test_a_component_needs_a_seed(self) -> None:
        values = torch.zeros(1, 5, 9)
        values[0, 1, 1:3] = 0.6  # no seed
        values[0, 3, 5:8] = 0.6
        values[0, 3, 6] = 0.9
        kept = videopca.hysteresis(values)[0]
        assert kept.nonzero().tolist() == [[3, 5], [3, 6], [3, 7]]

    def test_corners_connect(self) -> None:
        values = torch.zeros(1, 4, 4)
        values[0, 0, 0], values[0, 1, 1], values[0, 2, 2] = 0.9, 0.6, 0.6
        assert videopca.hysteresis(values)[0].diagonal().tolist() == [True, True, True, False]

    @given(hnp.arrays(np.float32, (2, 8, 9), elements=st.floats(0, 1, width=32)))
    def test_between_its_thresholds(self, values: Array) -> None:
        """Seeds stay, pixels below the low threshold are removed, and a second call changes nothing."""
        kept = videopca.hysteresis(torch.from_numpy(values)).numpy()
        assert kept[values > 0.8].all()
        assert not kept[values <= 0.5].any()
        np.testing.assert_array_equal(videopca.hysteresis(torch.from_numpy(values * kept)).numpy(), kept)


@pytest.mark.parametrize("settings", [{"components": 0}, {"components": 10}, {"size": 3}, {"longest_run": 19}])
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="choose"):
        VideoPCASettings(**settings)


@pytest.mark.parametrize("threads", [2, 3])
def test_masks_do_not_depend_on_the_number_of_threads(
    threads: int, moving_disc: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    masks = all_soft_masks(moving_disc[0])
    torch.set_num_threads(1)
    np.testing.assert_array_equal(masks, all_soft_masks(moving_disc[0]))
    torch.set_num_threads(before)
