"""Video instance segmentation: foreground net, per-object nets, spatial propagation (Cheng et al., DAVIS 2017)."""

__version__ = "0.1.0"
