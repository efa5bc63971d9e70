"""Dense unsupervised learning for video segmentation, by label propagation (Araslanov et al., NeurIPS 2021)."""

__version__ = "0.1.0"
