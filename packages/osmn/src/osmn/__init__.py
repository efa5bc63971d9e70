"""One-shot modulation network for video object segmentation (Yang et al., CVPR 2018)."""

__version__ = "0.1.0"
