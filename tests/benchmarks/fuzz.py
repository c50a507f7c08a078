"""Feed damaged inputs to perjoule until something ends badly.

    nice python -m tests.benchmarks.fuzz N [SEED [KIND ...]]

N cases of each kind (tables, suites, prompt files, model folders, run directories, stored baselines, energy baselines),
numbered from SEED on; a number repeats its case. Prints each fault as it is found, then counts by kind; exits with 1
after a fault. A case takes about 0.2 s.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.mutated_inputs import KINDS, Stock, case


def main(arguments: list[str]) -> int:
    """Run the loop; returns the exit code."""
    count, seed, kinds = int(arguments[0]), int(arguments[1]) if arguments[1:] else 0, arguments[2:] or list(KINDS)
    faulty: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    commands: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        (Path(folder) / "stock").mkdir()
        stock = Stock.make(Path(folder) / "stock")
        for number in range(seed, seed + count):
            for kind in kinds:
                place = Path(folder) / "case"
                begun = time.process_time()
                try:
                    ran, found = case(kind, number, place, stock)
                finally:
                    shutil.rmtree(place, ignore_errors=True)
                seconds[kind] += time.process_time() - begun
                commands[kind] += ran
                faulty[kind] += bool(found)
                for text in found:
                    print(text, end="\n\n", flush=True)
    for kind in kinds:
        each = seconds[kind] / count
        print(
            f"{kind:16} {count} cases, {commands[kind]} commands, {faulty[kind]} with a fault, {each:.2f} s of CPU each"
        )
    return int(any(faulty.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
