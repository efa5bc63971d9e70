"""Statistics over frames and the protocols of DAVIS."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vos_shared.errors import BadResults
from vos_shared.method import ObjectMask
from vos_shared.metrics import contour_accuracy, region_similarity, statistics_of
from vos_shared.metrics.davis import Foreground, SemiSupervised, Unsupervised

EMPTY = np.zeros((40, 60), dtype=np.uint8)


def boxes(**columns: int) -> ObjectMask:
    """Boxes 20 high and 15 wide; ``k7=30`` puts box 7 into the columns from 30 on."""
    mask = EMPTY.copy()
    for name, left in columns.items():
        mask[10:30, left : left + 15] = int(name[1:])
    return mask


def test_mean_and_recall() -> None:
    mean, recall, _ = statistics_of([0.5, 0.6, 1.0, 0.1])
    assert mean == pytest.approx(0.55)
    assert recall == 0.5  # 0.5 does not count.


@pytest.mark.parametrize(
    ("values", "decay"),
    [
        ([0.7], 0),
        ([1, 0, 0], 0.5),  # Limits 1, 1.5, 2, 2.5, 3 round up to frames 1, 2, 2, 3, 3: frames 1-2 against frame 3.
        ([5, 4, 3, 2, 1], 3),  # Frames 1-2 against 4-5: adjacent quarters share a frame.
        (range(1001), -750),  # Frames 0-250 against 750-1000, although 250 and more do not fit into 8 bits.
    ],
)
def test_decay_is_first_quarter_minus_last(values: Sequence[float], decay: float) -> None:
    assert statistics_of(values).decay == pytest.approx(decay, abs=1e-12)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_what_stays_does_not_decay_however_long(frames: int, value: float) -> None:
    assert statistics_of([value] * frames).decay == pytest.approx(0, abs=1e-12)


@given(st.integers(256, 3000))
def test_a_straight_line_decays_by_three_quarters_of_its_fall(frames: int) -> None:
    falling = np.linspace(1, 0, frames).tolist()
    assert statistics_of(falling).decay == pytest.approx(0.75, abs=2 / frames)


def test_no_frames_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="no frame"):
        statistics_of([])


def test_foreground_is_the_union_of_all_ids_outside_void() -> None:
    truth = boxes(k1=0, k2=20, k255=40)
    evaluator = Foreground()
    evaluator.add(truth, boxes(k9=0, k4=20))
    evaluator.add(truth, boxes(k9=0, k4=40))
    (scores,) = evaluator.result().values()
    assert scores.region == [1, 0.5]


def test_each_row_carries_its_own_object_though_ids_have_gaps() -> None:
    truth = boxes(k2=0, k7=30)
    evaluator = SemiSupervised(truth)
    evaluator.add(truth, boxes(k2=0, k3=45))  # 7 is not predicted, 3 is not an object.
    evaluator.add(truth, boxes(k2=5, k7=30))
    result = evaluator.result()
    assert list(result) == [2, 7]
    assert result[2].region == [1, 0.5]
    assert result[7].region == [0, 1]
    assert result[7].contour == [0, 1]


def test_scores_of_an_object_are_those_of_its_masks_alone() -> None:
    noise = np.random.default_rng(3)
    truth, prediction = noise.integers(0, 4, (2, 40, 60), dtype=np.uint8)
    evaluator = SemiSupervised(truth)
    evaluator.add(truth, prediction)
    for k, scores in evaluator.result().items():
        assert scores.region == [region_similarity(truth == k, prediction == k)]
        assert scores.contour == [contour_accuracy(truth == k, prediction == k)]


def test_an_object_that_enters_later_is_right_where_nobody_has_it() -> None:
    evaluator = SemiSupervised(boxes(k1=0))
    evaluator.add(boxes(k1=0), boxes(k1=0))
    evaluator.add(boxes(k1=0), boxes(k1=0, k2=20))  # Predicted before it appears.
    evaluator.add(boxes(k1=0, k2=20), boxes(k1=0, k2=25, k3=45))
    result = evaluator.result()
    assert list(result) == [1, 2]
    assert result[1].region == [1, 1, 1]
    assert result[2].region == [1, 0, 0.5]
    assert result[2].contour[:2] == [1, 0]


def test_proposals_are_assigned_to_the_objects_they_cover_best() -> None:
    truth = [boxes(k1=0, k2=20, k3=45)] * 3
    prediction = [boxes(k5=20, k9=2, k14=47), boxes(k5=20, k9=0, k14=45), boxes(k5=22, k9=0)]
    proposals, given_ids = Unsupervised(), SemiSupervised(truth[0])
    renamed = np.zeros(256, dtype=np.uint8)
    renamed[[9, 5, 14]] = [1, 2, 3]
    for ours, theirs in zip(truth, prediction, strict=True):
        proposals.add(ours, theirs)
        given_ids.add(ours, renamed[theirs])
    assert proposals.result() == given_ids.result()


@given(st.integers(0, 2**32))
def test_no_other_assignment_of_proposals_is_better(seed: int) -> None:
    noise = np.random.default_rng(seed)
    truth = noise.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (3, 12, 15))
    prediction = noise.integers(0, 4, truth.shape, dtype=np.uint8)
    evaluator = Unsupervised()
    for ours, theirs in zip(truth, prediction, strict=True):
        evaluator.add(ours, theirs)
    found = sum(np.mean([scores.region, scores.contour]) for scores in evaluator.result().values())

    def score(k: int, p: int) -> float:
        pairs = [(ours == k, theirs == p, ours == 255) for ours, theirs in zip(truth, prediction, strict=True)]
        values = [(region_similarity(a, b, void), contour_accuracy(a, b, void=void)) for a, b, void in pairs]
        return float(np.mean(values))

    best = max(score(1, p) + score(2, q) for p, q in permutations((1, 2, 3), 2))
    assert found == pytest.approx(best, abs=1e-12)


def test_an_object_without_proposal_is_scored_against_nothing() -> None:
    evaluator = Unsupervised()
    evaluator.add(boxes(k1=0, k2=20), boxes(k1=20))
    evaluator.add(boxes(k1=0), boxes())
    result = evaluator.result()
    assert result[1].region == [0, 0]
    assert result[2].region == [1, 1]


def test_without_objects_there_is_nothing_to_assign() -> None:
    evaluator = Unsupervised()
    evaluator.add(EMPTY, boxes(k1=0))
    assert evaluator.result() == {}


def test_void_does_not_count_for_proposals() -> None:
    evaluator = Unsupervised()
    evaluator.add(boxes(k1=0, k255=15), boxes(k1=8))
    (scores,) = evaluator.result().values()
    assert scores.region == [7 / 15]


@pytest.mark.parametrize("amount", [20, 21])
def test_at_most_20_proposals_in_a_sequence(amount: int) -> None:
    evaluator = Unsupervised()
    for k in range(1, amount):
        evaluator.add(boxes(k1=0), boxes(**{f"k{k}": 0}))
    last = boxes(**{f"k{amount}": 0})
    if amount > 20:
        with pytest.raises(BadResults, match="21 different ids"):
            evaluator.add(boxes(k1=0), last)
    else:
        evaluator.add(boxes(k1=0), last)
        assert sum(evaluator.result()[1].region) == 1
