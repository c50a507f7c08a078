"""Size and render time of reports, and what a browser says to them.

    nice python -m tests.benchmarks.reports [--million] [RUN ...]

Each run is rendered twice, in processes of their own; the better of two seconds and CPU seconds, and the peak memory,
are those of `perjoule report`, imports included. `--million` adds 10⁴ to 10⁶ trials of 30 arms in 3 metrics, and a
folder of 100 runs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from perjoule.importing.conversion import import_table
from tests.benchmarks.statistics.million import table

COLUMNS = (
    *("what", "HTML kB", "MD kB", "JSON kB", "s", "CPU s", "peak MiB"),
    *("same bytes", "requests", "complaints", "s to load"),
)


def rendered(run: Path, out: Path) -> tuple[float, float, float]:
    """Run the command. -> (seconds, CPU seconds, peak MiB)."""
    # a child of a child, since the peak is kept over all children of a process
    code = (
        "import resource, subprocess, sys, time; began = time.perf_counter(); "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "took = time.perf_counter() - began; used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    command = [str(Path(sys.executable).with_name("perjoule")), "report", str(run), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    seconds, cpu, peak = map(float, done.stdout.split())
    return seconds, cpu, peak


def seen(page: Path) -> tuple[int, int, float]:
    """Open the page in Chromium. -> (requests beside the page and its own pictures, complaints, seconds to load)."""
    requests: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"))
        tab = browser.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        began = time.perf_counter()
        tab.goto(page.as_uri())
        took = time.perf_counter() - began
        browser.close()
    return len([url for url in requests if not url.startswith("data:")]) - 1, len(complaints), took


def line(name: str, run: Path, folder: Path) -> tuple[object, ...]:
    """Measure one run or folder of runs."""
    pages = [folder / f"{number}" / "page.html" for number in (1, 2)]
    costs = [rendered(run, page) for page in pages]
    digests = {hashlib.sha256(page.read_bytes()).hexdigest() for page in pages}
    asked, complained, took = seen(pages[0])
    files = [pages[0].with_suffix(ending) for ending in (".html", ".md", ".json")]
    sizes = [file.stat().st_size / 1e3 if file.exists() else 0.0 for file in files]
    seconds, cpu = (f"{min(part):.1f}" for part in list(zip(*costs, strict=True))[:2])
    peak, same = f"{max(peak for *_, peak in costs):.0f}", "yes" if len(digests) == 1 else "NO"
    return name, *(f"{size:.0f}" for size in sizes), seconds, cpu, peak, same, asked, complained, f"{took:.1f}"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--million", action="store_true")
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        runs = [(run.name, run) for run in arguments.runs]
        if arguments.million:
            for trials in (10_000, 100_000, 1_000_000):
                table(trials).write_parquet(root / "t.parquet")
                import_table(root / "t.parquet", root / f"run-{trials}")
                runs.append((f"{trials:,} trials, 30 arms", root / f"run-{trials}"))
            (root / "many").mkdir()
            table(600).write_parquet(root / "t.parquet")
            import_table(root / "t.parquet", root / "many" / "run-0")
            for number in range(1, 100):
                shutil.copytree(root / "many" / "run-0", root / "many" / f"run-{number}")
            runs.append(("index of 100 runs", root / "many"))
        for number, (name, run) in enumerate(runs):
            print(f"| {' | '.join(map(str, line(name, run, root / f'out-{number}')))} |", flush=True)


if __name__ == "__main__":
    main()
