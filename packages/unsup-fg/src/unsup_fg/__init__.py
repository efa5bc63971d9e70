"""Unsupervised learning of foreground from video: teacher and students (Croitoru et al., ICCV 2017, IJCV 2019)."""

__version__ = "0.1.0"
