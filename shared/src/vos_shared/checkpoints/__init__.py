"""Weights: our own files, those of the official repositories, and the ones published on the web."""
