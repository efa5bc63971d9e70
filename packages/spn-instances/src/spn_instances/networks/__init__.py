"""The networks: foreground and per-object net, and the network that refines their masks."""

from spn_instances.networks.refinement import Refinement, RefinementNet
from spn_instances.networks.resnetf import Architecture, ResNetF

__all__ = ["Architecture", "Refinement", "RefinementNet", "ResNetF"]
