"""Give damaged inputs to every reader of foreign files until one ends badly.

    nice python -m tests.benchmarks.readers N [SEED [NAME ...]]

N inputs for each target of `tests.support.readers`, numbered from SEED on; a number repeats its input. Prints the
faults as they are found (another error than a refusal, more than 5 s, a file outside), then counts; exits with 1 after
a fault. An input takes about a millisecond.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.readers import Target, inputs_of, make_targets, refusal_of

_SLOW_S = 5.0


def fault_of(target: Target, folder: Path, content: bytes) -> tuple[str | None, bool]:
    """Return what is wrong with how a reader ended, and whether it refused the input."""
    begun = time.process_time()
    try:
        refusal = refusal_of(target, folder, content)
    except BaseException as error:  # polars panics are not an Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error)[-4:]), False
    seconds = time.process_time() - begun
    return (f"took {seconds:.1f} s" if seconds > _SLOW_S else None), refusal is not None


def main(arguments: list[str]) -> int:
    """Run the loop; returns the exit code."""
    count, seed = int(arguments[0]), int(arguments[1]) if arguments[1:] else 0
    os.fsync = lambda handle: None  # type: ignore[assignment]
    faulty: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        targets = make_targets(Path(folder) / "made")
        chosen = {name: targets[name] for name in arguments[2:] or targets}
        for name, target in chosen.items():
            place = Path(folder) / "input"
            place.mkdir()
            begun, refused = time.process_time(), 0
            for number in range(seed, seed + count):
                content = inputs_of(target, random.Random(f"{name} {number}"))
                fault, said_no = fault_of(target, place, content)
                refused += said_no
                if fault is not None:
                    faulty[name] += 1
                    if faulty[name] <= 3:
                        print(f"{name} {number}: {fault}\n{content[:300]!r}\n", flush=True)
            outside = {path.name for path in Path(folder).iterdir()} - {"made", "input"}
            if outside:
                faulty[name] += 1
                print(f"{name}: files outside: {outside}")
            each = (time.process_time() - begun) / count * 1000
            print(f"{name:20} {count} inputs, {refused} refused, {faulty[name]} faults, {each:.2f} ms each", flush=True)
            place.rename(Path(folder) / "made" / f"input-{len(list((Path(folder) / 'made').iterdir()))}")
    print(f"{count * len(chosen)} inputs, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return int(any(faulty.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
