"""Try odd files and flags by command lines: `python -m tests.odd_files [WORDS]`.

A table shows each situation, its command and its outcome. The status is 1 if one is WRONG: a
traceback, several lines of error, or a wrong result without a word. With WORDS only situations are
tried whose description holds them.
"""
from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for conftest.py

from tests.odd_files.base import load_modules, make_base
from tests.odd_files.situation import ROOT, try_situation
from tests.odd_files.table import SITUATIONS

PROCESSES = 2


def try_numbered(number: int) -> tuple[str, str]:
    """Try a situation by its place in the table: functions cannot be sent to a process."""
    return try_situation(SITUATIONS[number])


def main() -> int:
    """Try the situations, print the table and the counts; return the exit status."""
    wanted = [number for number, s in enumerate(SITUATIONS)
              if all(word in s.words for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory(prefix="odd_base_") as folder:
        os.environ["ODD_BASE"] = folder
        Path(folder).chmod(0o755)
        make_base(Path(folder))
        load_modules()
        counts = Counter()
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("fork")) as pool:
            for number, (word, reason) in zip(wanted, pool.map(try_numbered, wanted), strict=True):
                counts[word] += 1
                reason = reason.replace(folder, "{base}").replace(str(ROOT), ".")
                shown = f" ({' '.join(reason.split())})" if reason else ""
                words, command, *_ = SITUATIONS[number]
                print(f"{words} | {command} | {word}{shown}", flush=True)
    print(f"{sum(counts.values())} situations: {counts['right']} right, {counts['refused']} "
          f"refused, {counts['WRONG']} WRONG")
    return 1 if counts["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
