"""Device, precision, seeds, timing, memory and processes."""
