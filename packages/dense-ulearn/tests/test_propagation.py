from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dense_ulearn.neighbours import CPU, GPU, Grain, Tiling, largest
from dense_ulearn.propagation import LabelPropagation
from dense_ulearn.settings import PropagationSettings
from vos_shared.errors import UserError


def dense_step(
    features: list[Tensor], labels: list[Tensor], reference: int, valid: Tensor, options: PropagationSettings
) -> tuple[Tensor, Tensor]:
    """One step of the method by its definition: all context entries, one matrix of all similarities.

    `features` [h, w, D] up to the new frame, `labels` [h, w, M] up to the one before. Also returns bool [h, w]: there
    is one right answer, since the nearest cell that is not a neighbour is farther by more than rounding, or has the
    same labels, or both are beyond the radius.
    """
    time = len(features) - 1
    height, width, _ = features[0].shape
    context = [reference, *(max(j, reference) for j in range(time - options.context, time))]
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
    far = torch.cdist(places, places) >= options.radius
    entries = [features[frame].flatten(0, 1) @ features[time].flatten(0, 1).T for frame in context]
    entries[1:] = [entry - 1e10 * far for entry in entries[1:]]
    similarity = torch.cat(entries) / options.temperature  # [entries * h * w, h * w]
    nearest = similarity.topk(min(options.neighbours + 1, len(similarity)), dim=0)
    values, index = nearest.values[: options.neighbours], nearest.indices[: options.neighbours]
    known = torch.cat([labels[frame].flatten(0, 1) for frame in context])
    voters = known[index]  # [k, h * w, M]
    weightless = values[-1] < -1e6
    clear = weightless | (values[-1] - nearest.values[-1] > 1e-6 / options.temperature)
    decided = clear | (voters[-1] == known[nearest.indices[-1]]).all(-1)  # As for copies of the reference.
    result = (values.softmax(0)[..., None] * voters).sum(0)
    return (result * valid).view(height, width, -1), decided.view(height, width)


def random_features(height: int, width: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(height, width, 6, generator=generator), dim=-1)


@given(
    height=st.integers(1, 19),
    width=st.integers(1, 23),
    radius=st.sampled_from([0.5, 1.0, 1.5, 2.5, 5.0, 12.0, 100.0]),
    context=st.integers(0, 5),
    neighbours=st.sampled_from([1, 3, 10, 40]),
    grain=st.sampled_from([CPU, GPU, Grain(3, 2, stacked=2, by_column=False, at_once=50)]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_tiles_find_what_the_dense_form_finds(
    height: int, width: int, radius: float, context: int, neighbours: int, grain: Grain, seed: int, device: torch.device
) -> None:
    """Covers evicted frames, copies of the reference at the start, windows beyond the map, and fewer cells than k."""
    options = PropagationSettings(context, radius, neighbours)
    generator = torch.Generator().manual_seed(seed)
    propagation = LabelPropagation(options, grain=grain)
    inside = (torch.rand(height, width, generator=generator) > 0.5).float()
    masks = torch.stack([1 - inside, inside])
    frames, labels, valid = [], [], (masks.sum((1, 2)) > 0).float()
    for time in range(9):
        frames.append(random_features(height, width, generator))
        if time == 0:
            labels.append(propagation.step(frames[0].to(device), masks.to(device), [0, 4]).cpu())
            torch.testing.assert_close(labels[0], masks.permute(1, 2, 0))
            continue
        expected, decided = dense_step(frames, labels, 0, valid, options)
        assert (~decided).sum() <= 2
        labels.append(propagation.step(frames[-1].to(device)).cpu())
        torch.testing.assert_close(labels[-1][decided], expected[decided], rtol=0, atol=2e-5)


def test_each_object_follows_its_own_reference_frame() -> None:
    generator = torch.Generator().manual_seed(3)
    options = PropagationSettings(context=4, radius=3)
    propagation = LabelPropagation(options)
    first, late = torch.zeros(2, 9, 11), torch.zeros(1, 9, 11)
    first[1, :4, :5] = 1
    first[0] = 1 - first[1]
    late[0, 5:, 6:] = 1
    frames = [random_features(9, 11, generator) for _ in range(9)]
    of_first, of_late = torch.tensor([1.0, 0, 1]), torch.tensor([0.0, 1, 0])  # channels 0, 2, 7
    labels = [propagation.step(frames[0], first, [0, 7])]
    for time in range(1, 9):
        known = [wide(label) for label in labels]
        expected, _ = dense_step(frames[: time + 1], known, 0, of_first, options)
        if time > 3:
            expected += dense_step(frames[: time + 1], known, 3, of_late, options)[0]
        if time == 3:
            given = late[0][..., None]
            expected = (1 - given) * expected + given * of_late
            labels.append(propagation.step(frames[time], late, [2]))
        else:
            labels.append(propagation.step(frames[time]))
        torch.testing.assert_close(wide(labels[-1]), expected, rtol=0, atol=2e-5)
    assert propagation.ids == [0, 2, 7]


def wide(labels: Tensor) -> Tensor:
    """Channels 0, 7 become 0, 2, 7."""
    if labels.shape[-1] == 3:
        return labels
    return torch.stack([labels[..., 0], torch.zeros_like(labels[..., 0]), labels[..., 1]], -1)


def test_the_number_of_threads_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    masks = F.one_hot(torch.arange(40) * 3 // 40, 3).T[:, None].expand(3, 40, 40).float()
    frames = [random_features(40, 40, generator) for _ in range(4)]
    before, labels = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            propagation = LabelPropagation(PropagationSettings())
            propagation.step(frames[0], masks, [0, 1, 2])
            labels.append([propagation.step(frame) for frame in frames[1:]])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*labels, strict=True))


def test_a_still_video_keeps_its_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    features = random_features(12, 14, generator)
    masks = torch.zeros(2, 12, 14)
    masks[1, 3:8, 4:9] = 1
    masks[0] = 1 - masks[1]
    propagation = LabelPropagation(PropagationSettings(neighbours=1))
    for time in range(30):
        labels = propagation.step(features, *((masks, [0, 1]) if time == 0 else ()))
        torch.testing.assert_close(labels, masks.permute(1, 2, 0))


@given(
    groups=st.integers(1, 30),
    members=st.integers(1, 9),
    k=st.integers(1, 25),
    seed=st.integers(0, 2**16),
    hide=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_largest_equals_a_full_sort(groups: int, members: int, k: int, seed: int, hide: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(groups, members, 5, generator=generator)
    outside = torch.rand(groups, 5, generator=generator) > 0.6 if hide else None
    flat = scores if outside is None else scores.masked_fill(outside[:, None], -torch.inf)
    expected = flat.flatten(0, 1).T.sort(descending=True).values[:, :k]
    values, index = largest(scores, k, outside)
    found = expected.shape[1]
    assert values.shape == index.shape == (5, k)
    assert values[:, found:].isneginf().all()
    torch.testing.assert_close(values[:, :found], expected)
    torch.testing.assert_close(flat.flatten(0, 1).T.gather(1, index[:, :found]), expected)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    radius=st.floats(0.1, 60),
    tile=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    by_column=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_windows_hold_exactly_the_cells_within_the_radius(
    height: int, width: int, radius: float, tile: tuple[int, int], by_column: bool
) -> None:
    tiling = Tiling(height, width, radius, Grain(*tile, stacked=3, by_column=by_column, at_once=1))
    seen = np.zeros((height, width), int)
    for area in [tile for block in tiling.blocks() for tile in tiling.tiles(block)]:
        seen[area.top : area.bottom, area.left : area.right] += 1
        cells = tiling.cells_of(tiling.window(area))
        outside = tiling.outside(area, cells)
        places = [(y, x) for y in range(area.top, area.bottom) for x in range(area.left, area.right)]
        for (y, x), hidden in zip(places, outside.T, strict=True):
            near = (np.arange(height)[:, None] - y) ** 2 + (np.arange(width) - x) ** 2 < radius**2
            assert sorted(cells[~hidden].tolist()) == np.flatnonzero(near).tolist()
    assert (seen == 1).all()


@pytest.mark.parametrize(
    "change", [{"context": -1}, {"radius": 0}, {"neighbours": 0}, {"temperature": 0.0}, {"temperature": 1e-40}]
)
def test_settings_without_meaning_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(change))} is .*; it must be "):
        dataclasses.replace(PropagationSettings(), **change)
