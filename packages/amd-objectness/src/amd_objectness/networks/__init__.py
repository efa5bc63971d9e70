"""The appearance network, the motion network, and both together; see `AMD`."""

from amd_objectness.networks.appearance import SegmentHead
from amd_objectness.networks.backbone import Backbone
from amd_objectness.networks.correlation import correlation
from amd_objectness.networks.model import AMD
from amd_objectness.networks.motion import MotionNetwork, SegmentFlow

__all__ = ["AMD", "Backbone", "MotionNetwork", "SegmentFlow", "SegmentHead", "correlation"]
