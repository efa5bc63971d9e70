"""The networks: `ResNetF` for the foreground and for objects, and `RefinementNet`, which refines their masks."""

from spn_instances.networks.refinement import Refinement, RefinementNet
from spn_instances.networks.resnetf import Architecture, ResNetF

__all__ = ["Architecture", "Refinement", "RefinementNet", "ResNetF"]
