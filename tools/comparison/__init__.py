"""The comparison behind `tools/compare.py`: inputs, worker processes, scores, report."""
