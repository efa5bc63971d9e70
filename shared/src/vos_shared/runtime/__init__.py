"""What every run needs: device, precision, seeds, timing, memory, several processes."""
