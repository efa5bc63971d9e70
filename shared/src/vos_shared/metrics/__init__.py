"""Measures of video object segmentation; the protocols of DAVIS are in `davis`."""

from vos_shared.metrics.contour import BOUND_TH, contour_accuracy
from vos_shared.metrics.region import region_similarity
from vos_shared.metrics.statistics import Statistics, statistics_of

__all__ = ["BOUND_TH", "Statistics", "contour_accuracy", "region_similarity", "statistics_of"]
