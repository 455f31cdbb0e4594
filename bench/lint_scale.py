"""CPU seconds of checking generated specs of 200, 2,000 and 20,000 values: `python bench/lint_scale.py`."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from scale import spec

from graphspec.cli.load import check_document
from graphspec.reader import read_text

if __name__ == "__main__":
    gc.disable()  # as the lint command does
    check_document(read_text("warm.yaml", spec(50)), Path())
    for values in (200, 2_000, 19_990):
        text = spec(values)
        began = time.process_time()
        checked = check_document(read_text("big.yaml", text), Path())
        print(f"{len(checked.graph.values):6} values  {time.process_time() - began:6.2f} CPU s")
