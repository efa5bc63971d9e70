"""Layers and losses of several methods that PyTorch lacks."""
