"""Instance segmentation in video with a foreground net, per-object nets and spatial propagation (Cheng et al., DAVIS 2017)."""

__version__ = "0.1.0"
