"""What the video object segmentation methods of this workspace share."""

__version__ = "0.1.0"
