"""Unsupervised learning of foreground from video: VideoPCA teacher and student networks (Croitoru et al., ICCV 2017 / IJCV 2019)."""

__version__ = "0.1.0"
