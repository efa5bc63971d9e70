"""Compare video object segmentation methods: masks, scores, speed, and one report to look at.

`python compare.py --help` says what can be given; the work is done in `comparison/` beside this file.
"""

from comparison.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
