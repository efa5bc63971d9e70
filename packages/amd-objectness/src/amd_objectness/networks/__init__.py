"""The appearance network, the motion network, and both together; see `AMD`."""

from amd_objectness.networks.appearance import SegmentHead
from amd_objectness.networks.backbone import Backbone
from amd_objectness.networks.model import AMD
from amd_objectness.networks.motion import MotionNetwork, SegmentFlow, correlation

__all__ = ["AMD", "Backbone", "MotionNetwork", "SegmentFlow", "SegmentHead", "correlation"]
