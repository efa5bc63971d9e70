"""Layers and losses that official checkpoints of several methods need and PyTorch lacks."""
