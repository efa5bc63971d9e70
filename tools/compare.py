"""Compare video object segmentation methods: masks, scores, speed, and one report.

`python compare.py --help` lists the options; the code is in `comparison/` beside this file.
"""

from comparison.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
