"""CRAF, the connected-region-aware filter: keeps the regions of each object that agree with the previous frame.

Soft maps here are uint8 [K, H, W], 0..255; row k belongs to label k + 1. Label maps are uint8 [H, W], 0 is background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vos_shared.method import ObjectMask

Maps = npt.NDArray[np.uint8]
BoolMask = npt.NDArray[np.bool_]

_EIGHT_NEIGHBOURS = np.ones((3, 3), np.int_)
_PROMOTED = 255


@dataclass(frozen=True)
class Regions:
    """The 8-connected regions of a mask, ordered by their first pixel, column after column as in Matlab.

    Attributes:
        labels: int32 [H, W]; 0 outside, j + 1 in region j.
        areas: number of pixels of each region, [R].
    """

    labels: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: BoolMask) -> Regions:
        """Find the regions of a mask, bool [H, W]."""
        # scipy numbers regions row after row, so that of the transposed mask it goes by columns.
        transposed, count = ndimage.label(np.ascontiguousarray(mask.T), _EIGHT_NEIGHBOURS)
        return cls(transposed.T, np.bincount(transposed.ravel(), minlength=count + 1)[1:])

    def __len__(self) -> int:
        """Number of regions."""
        return len(self.areas)

    def mask(self, index: int) -> BoolMask:
        """One region, bool [H, W]."""
        return np.asarray(self.labels == index + 1)

    def jaccard(self, other: BoolMask) -> npt.NDArray[np.float64]:
        """Jaccard index of each region with another mask, [R]."""
        shared = np.bincount(self.labels[other], minlength=len(self) + 1)[1:]
        return np.asarray(shared / (self.areas + np.count_nonzero(other) - shared))

    def first_values(self, image: Maps) -> npt.NDArray[np.uint8]:
        """Value of an image, uint8 [H, W], at the first pixel of each region, [R]."""
        values = np.zeros(len(self), np.uint8)
        for index, (rows, columns) in enumerate(ndimage.find_objects(self.labels)):
            row = rows.start + int(np.argmax(self.labels[rows, columns.start] == index + 1))
            values[index] = image[row, columns.start]
        return values


@dataclass(frozen=True)
class DemoFilter:
    """The algorithm of the released demo, exactly; the defaults are its constants.

    An object without pixels in the previous labels is cleared. It can come back only while it covers `recovery_area`.
    """

    region_value: int = 30
    """Regions are connected pixels of the soft map above this value."""
    least_jaccard: float = 0.01
    """An object is cleared if no region has a Jaccard index above this with its previous mask."""
    area_share: float = 0.2
    """The chosen region is larger than this part of the object's largest region."""
    label_value: int = 100
    """Pixels whose best soft map is below this value are background."""
    recovery_area: int = 100
    """Recovery (step C): only objects that had at least this many pixels in the previous frame take part."""
    recovery_share: float = 0.3
    """Recovery: objects take part that keep less than this part of their previous area."""
    recovery_jaccard: float = 0.2
    """Recovery: an object takes over unlabelled regions whose Jaccard index with its previous mask is above this."""

    def __call__(self, maps: Maps, previous: ObjectMask, foreground: BoolMask | None = None) -> ObjectMask:
        """Labels of a frame.

        Args:
            maps: soft maps, uint8 [K, H, W].
            previous: labels of the previous frame, uint8 [H, W], 0..K.
            foreground: bool [H, W]; pixels outside it are background. None is everywhere.

        Returns:
            uint8 [H, W], 0..K.
        """
        edited = np.stack([self._selected(soft, previous == row + 1) for row, soft in enumerate(maps)])
        labels = _strongest(edited, self.label_value)
        inside = np.ones(labels.shape, np.bool_) if foreground is None else foreground
        labels[~inside] = 0
        self._recover(labels, maps, previous)
        labels[~inside] = 0
        return labels

    def _selected(self, soft: Maps, before: BoolMask) -> Maps:
        """The soft map with the chosen region and those that were promoted before it, all others cleared (step A)."""
        regions = Regions.of(soft > self.region_value)
        if not len(regions):
            return soft
        edited, jaccard, start = soft.copy(), regions.jaccard(before), 0
        while (best := jaccard.max()) > self.least_jaccard:
            index = _next_equal(jaccard, best, start)
            if regions.areas[index] / regions.areas.max() > self.area_share:
                dropped = regions.first_values(edited) != _PROMOTED
                dropped[index] = False
                edited[np.concatenate([[False], dropped])[regions.labels]] = 0
                return edited
            edited[regions.mask(index)] = _PROMOTED
            jaccard[index] = 0
            start = index + 1
        return np.zeros_like(soft)

    def _recover(self, labels: ObjectMask, maps: Maps, previous: ObjectMask) -> None:
        """Give unlabelled regions of all maps to objects that shrank much (step C); changes `labels`."""
        for label in range(1, len(maps) + 1):
            before = previous == label
            area = np.count_nonzero(before)
            if area < self.recovery_area or np.count_nonzero(labels == label) >= self.recovery_share * area:
                continue
            for soft in maps:
                regions = Regions.of((soft > 0) & (labels == 0))
                taken = regions.jaccard(before) > self.recovery_jaccard
                labels[np.concatenate([[False], taken])[regions.labels]] = label


def _next_equal(values: npt.NDArray[np.float64], wanted: float, start: int) -> int:
    """The first index from `start` on, cyclically, at which the value is `wanted`."""
    found = np.flatnonzero(values == wanted)
    return int(found[np.searchsorted(found, start) % len(found)])


def _strongest(maps: Maps, least: int) -> ObjectMask:
    """Label of the strongest map, of equal maps the first; 0 where all are below `least`."""
    labels = (np.argmax(maps, axis=0) + 1).astype(np.uint8)
    labels[maps.max(axis=0) < least] = 0
    return np.asarray(labels)


@dataclass(frozen=True)
class PaperFilter:
    """The algorithm of the paper, which differs from the demo's; the defaults are its four constants.

    Where the paper leaves a choice open, the demo decides: threshold of regions, least value of a label, use of the
    foreground. gamma is taken as a part of the object's previous area, which the paper does not say.
    """

    area_share: float = 0.2
    """alpha: the selected region is larger than this part of the object's largest region."""
    coverage: float = 0.9
    """beta: a region that covers more than this part of another object's region leaves those pixels to it."""
    small_share: float = 0.1
    """gamma: an object whose region is smaller than this part of its previous area searches the unselected regions."""
    recovery_jaccard: float = 0.4
    """delta: it takes the one with the best Jaccard index with its previous mask, if that is above this."""
    region_value: int = 30
    """Regions are connected pixels of the soft map above this value (demo)."""
    label_value: int = 100
    """Pixels whose best soft map is below this value are background (demo)."""

    def __call__(self, maps: Maps, previous: ObjectMask, foreground: BoolMask | None = None) -> ObjectMask:
        """Labels of a frame; arguments and result as `DemoFilter`."""
        found = [Regions.of(soft > self.region_value) for soft in maps]
        before = [np.asarray(previous == row + 1) for row in range(len(maps))]
        chosen = [self._select(regions, old) for regions, old in zip(found, before, strict=True)]
        selected = [
            np.zeros_like(old) if index is None else regions.mask(index)
            for regions, index, old in zip(found, chosen, before, strict=True)
        ]
        self._uncover(selected)
        scores = maps.copy()
        for row, old in enumerate(before):
            if selected[row].sum() >= self.small_share * old.sum():
                continue
            best = max(self._unselected(found, chosen, old), default=None)
            if best is not None:
                _, source, index = best
                selected[row] = found[source].mask(index)
                scores[row] = np.maximum(scores[row], maps[source])
                self._uncover(selected)
        labels = _strongest(scores * np.stack(selected), self.label_value)
        if foreground is not None:
            labels[~foreground] = 0
        return labels

    def _select(self, regions: Regions, before: BoolMask) -> int | None:
        """The object's region (step 1): that with the best Jaccard index, of equal ones the largest."""
        if not len(regions):
            return None
        large = regions.areas / regions.areas.max() > self.area_share
        jaccard = np.where(large, regions.jaccard(before), -1.0)
        return int(np.lexsort((regions.areas, jaccard))[-1])

    def _uncover(self, selected: list[BoolMask]) -> None:
        """Remove the pixels of covered regions from the regions that cover them (step 2); changes the list."""
        for i, region in enumerate(selected):
            for j, other in enumerate(selected):
                area = other.sum()
                if i != j and area and (region & other).sum() / area > self.coverage:
                    region = selected[i] = region & ~other

    def _unselected(
        self, found: list[Regions], chosen: list[int | None], before: BoolMask
    ) -> Iterator[tuple[float, int, int]]:
        """(Jaccard index, row of the map, index) of unselected regions with an index above delta (step 3)."""
        for row, (regions, taken) in enumerate(zip(found, chosen, strict=True)):
            for index, value in enumerate(regions.jaccard(before)):
                if value > self.recovery_jaccard and index != taken:
                    yield float(value), row, index
