"""The tests under the arithmetic of other machines.

    python -m tests.portability [PYTEST ARGUMENTS]        or: tox -e portability

Libraries choose their kernels by the processor; environment variables make them take those of another one. Kernels
differ in the order of their sums, and so in the last bits of results. What passes here rests on no such bit. A
processor cannot run instructions that it lacks: those settings are named and left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

# what is set, and the instructions that it needs, as /proc/cpuinfo spells them
SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "as it is": ({}, ""),
    "OpenBLAS of Haswell": ({"OPENBLAS_CORETYPE": "Haswell"}, "avx2"),
    "OpenBLAS of Zen": ({"OPENBLAS_CORETYPE": "Zen"}, "avx2"),
    "OpenBLAS of SkylakeX": ({"OPENBLAS_CORETYPE": "SkylakeX"}, "avx512f"),
    "OpenBLAS of Nehalem": ({"OPENBLAS_CORETYPE": "Nehalem"}, "sse4_2"),
    "OpenBLAS of Prescott": ({"OPENBLAS_CORETYPE": "Prescott"}, ""),
    "one thread": ({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, ""),
    "two threads": ({"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}, ""),
    "torch without vectors": (
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        "",
    ),
    "torch with AVX2": (
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        "avx2",
    ),
    "torch with AVX-512": (
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
        "avx512f",
    ),
}
# all that compares images, scores, intervals or pages with one another
TESTS = (
    "tests/perjoule/statistics",
    "tests/perjoule/gating",
    "tests/perjoule/quality",
    "tests/perjoule/running/test_execute.py",
    "tests/perjoule/running/test_scoring.py",
    "tests/perjoule/test_cli.py",
    "tests/perjoule_suites",
    "tests/perjoule_reports",
)


def main(arguments: list[str]) -> int:
    """Run pytest under each setting; 1 if any of them fails."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(re.findall(r"\w+", cpuinfo.read_text())) if cpuinfo.exists() else set()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
    failed = 0
    for name, (variables, needs) in SETTINGS.items():
        if needs and needs not in flags:
            print(f"{name}: left out, this processor has no {needs}", flush=True)
            continue
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines() or ["no output"]
        print(f"{name}: {lines[-1]}", flush=True)
        if done.returncode:
            failed = 1
            print("\n".join([*lines[-60:], *done.stderr.splitlines()[-20:]]), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
