"""The measures of video object segmentation; see `region`, `contour`, `statistics`, and the protocols in `davis`."""

from vos_shared.metrics.contour import BOUND_TH, contour_accuracy
from vos_shared.metrics.region import region_similarity
from vos_shared.metrics.statistics import Statistics, statistics_of

__all__ = ["BOUND_TH", "Statistics", "contour_accuracy", "region_similarity", "statistics_of"]
