"""Appearance-motion decomposition: objectness emerging from view synthesis (Liu et al., NeurIPS 2021)."""

__version__ = "0.1.0"
