"""The code of `tools/compare.py`: inputs, worker processes, scores, report."""
