"""Tables in Markdown from the records of a check. Needs numpy only, so that it can be repeated anywhere."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tests.gpu.records import Record, of_kind, read_records
from tests.gpu.response import fit_response

# ML.ENERGY, NVIDIA H100 80GB HBM3, batch 1, 25 steps, float16: J/image
PUBLISHED_J = {("sd21", 768): 386.5, ("sdxl", 1024): 969.4}
_TOOLS = (("counter_j", "counter difference"), ("zeus_j", "Zeus"), ("polling_j", "10 Hz polling"))


def print_summary(out: Path) -> int:
    """Print the tables of a folder."""
    meter, sizes = read_records(out / "meter.jsonl"), read_records(out / "sizes.jsonl")
    sections = [
        *facts_lines(meter), *counter_lines(meter), *rest_lines(meter), *window_lines(meter), *train_lines(meter),
        *sum_lines(meter), *source_lines(meter), *warning_lines(meter + sizes), *size_lines(sizes),
        *run_lines(out / "demo"), *run_lines(out / "batching"), *verdict_lines(out / "pytest" / "second.json"),
        *junit_lines(sorted(out.glob("tests-*.xml"))), *failure_lines(meter + sizes),
        *stage_lines(read_records(out / "stages.jsonl")),
    ]  # fmt: skip
    print("\n".join(sections))
    return 0


def table(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A section with a table; nothing without rows."""
    listed = [[str(value) for value in row] for row in rows]
    if not listed:
        return []
    lines = [headers, ["---"] * len(headers), *listed]
    return [f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""]


def percent(share: float) -> str:
    return f"{100 * share:+.2f} %"


# -- the counter ---------------------------------------------------------------------------------------------------


def facts_lines(meter: list[Record]) -> list[str]:
    lines = []
    for record in of_kind(meter, "facts"):
        answers = record["answers"]
        refused = [name for name, answer in answers.items() if isinstance(answer, dict) and "refused" in answer]
        lines += [
            f"# {answers.get('nvmlDeviceGetName')}, driver {record['driver']}", "",
            f"- Fields of power and energy (field/scope: NVML code, 0 = answered): {json.dumps(record['fields'])}",
            f"- Refused: {', '.join(refused) or 'nothing'}",
            f"- Before any work: {json.dumps(record['state'])}", "",
        ]  # fmt: skip
    for record in of_kind(meter, "costs"):
        rows = [
            (name, f"{1000 * s['median']:.3f}", f"{1000 * s['longest']:.2f}") for name, s in record["seconds"].items()
        ]
        lines += table("Duration of an NVML call, ms", ("call", "median", "longest"), rows)
    return lines


def counter_lines(meter: list[Record]) -> list[str]:
    rows = []
    for record in of_kind(meter, "updates"):
        updates = [(u["early_s"], u["late_s"], u["energy_mj"]) for u in record["updates"]]
        if len(updates) < 3:
            rows.append((record["when"], f"{len(updates)} updates", "", "", ""))
            continue
        times = [(early_s + late_s) / 2 for early_s, late_s, _ in updates]
        gaps_ms = 1000 * np.diff(times)
        powers_w = np.diff([energy_mj for *_, energy_mj in updates]) / gaps_ms
        width_ms = 1000 * float(np.median([late_s - early_s for early_s, late_s, _ in updates]))
        rows.append((
            record["when"], f"{np.median(gaps_ms):.1f} ms", f"{gaps_ms.min():.1f} to {gaps_ms.max():.1f} ms",
            f"{width_ms:.2f} ms", f"{powers_w.mean():.1f} ± {powers_w.std():.1f} W",
        ))  # fmt: skip
    lines = table("Energy counter", ("when", "period", "range", "width of an edge", "power between updates"), rows)
    for record in of_kind(meter, "steps"):
        updates = [(u["early_s"], u["late_s"], u["energy_mj"]) for u in record["updates"]]
        fit = fit_response(updates, record["at_work"])
        if fit is not None:
            lines += [
                f"Step response: lag {1000 * fit.lag_s:.1f} ms, mean over {1000 * fit.box_s:.0f} ms, "
                f"rest {fit.rest_w:.1f} W, work {fit.work_w:.1f} W, residual {fit.residual_j:.3g} J "
                f"per update ({len(updates)} updates).", "",
            ]  # fmt: skip
    for record in of_kind(meter, "phase"):
        lines += [f"Phase test: {_value(record['result'], 'words')}.", ""]
    for record in of_kind(meter, "meter"):
        lines += [f"perjoule: {record['method']}; idle {record['idle']}.", ""]
    return lines


def _value(record: Any, key: str) -> Any:
    return record.get(key, record) if isinstance(record, dict) else record


def rest_lines(meter: list[Record]) -> list[str]:
    rows = []
    for record in of_kind(meter, "rest"):
        for part, piece in _thirds(record["rows"]):
            instant = [power_w for _, _, power_w, _ in piece if power_w is not None]
            shown = f"{np.mean(instant):.1f}" if instant else ""
            rows.append((record["when"], part, _counter_w(piece), shown, piece[-1][3]))
    return table("Power at rest, W", ("when", "part", "counter", "instant", "SM clock, MHz"), rows)


def _counter_w(rows: list[Any]) -> str:
    """Mean power between the first and the last change of the counter; rows begin with time and counter in mJ."""
    changes = [later for earlier, later in pairwise(rows) if later[1] != earlier[1]]
    if len(changes) < 2:
        return ""
    return f"{(changes[-1][1] - changes[0][1]) / 1000 / (changes[-1][0] - changes[0][0]):.1f}"


def _thirds(rows: list[Any]) -> list[tuple[str, list[Any]]]:
    """First and last third, which differ while power decays."""
    third = len(rows) // 3
    return [("first third", rows[:third]), ("last third", rows[-third:])] if third >= 2 else []


# -- windows -------------------------------------------------------------------------------------------------------


def window_lines(meter: list[Record]) -> list[str]:
    """Windows compared with the line through long windows, and with the truth of a simulated board."""
    windows = [record for record in of_kind(meter, "window") if record["energy_j"] is not None]
    others = of_kind(meter, "other tools")
    rows: list[tuple[object, ...]] = []
    intercepts = []
    for work in dict.fromkeys(record["work"] for record in windows):
        own = [record for record in windows if record["work"] == work]
        longest_s = max(record["seconds"] for record in own)
        long = [record for record in own if record["seconds"] >= min(longest_s, 1.0)]
        unit_j = float(np.mean([record["energy_j"] / record["units"] for record in long]))
        weights = [1 / record["energy_j"] for record in own]
        if len({record["units"] for record in own}) > 2:
            fit = np.polyfit([r["units"] for r in own], [r["energy_j"] for r in own], 1, w=weights)
            intercepts.append(f"{work}: {1000 * unit_j:.4g} mJ per unit, intercept {fit[1]:+.3g} J")
        for seconds in sorted({record["seconds"] for record in own}):
            some = [record for record in own if record["seconds"] == seconds]
            rows.append((work, f"{seconds:g}", "perjoule", *_errors(some, "energy_j", unit_j, "bound_j")))
            for key, name in _TOOLS:
                chosen = [r for r in others if (r["work"], r["seconds"]) == (work, seconds) and r[key] is not None]
                if chosen:
                    rows.append((work, f"{seconds:g}", name, *_errors(chosen, key, unit_j, None)))
    headers = ("work", "window, s", "tool", "n", "mean error", "largest", "inside the bound", "median bound")
    lines = table("Windows compared with the line of equal work", headers, rows)
    lines += [f"- {line}" for line in intercepts] + ([""] if intercepts else [])
    return lines + truth_lines(windows, others)


def truth_lines(windows: list[Record], others: list[Record]) -> list[str]:
    """The same compared with the true energy, where the board is simulated."""
    rows: list[tuple[object, ...]] = []
    for seconds in sorted({record["seconds"] for record in windows}):
        own = [record for record in windows if record["seconds"] == seconds and record["true_j"]]
        if own:
            rows.append((f"{seconds:g}", "perjoule", *_errors(own, "energy_j", None, "bound_j")))
        for key, name in _TOOLS:
            chosen = [r for r in others if r["seconds"] == seconds and r["true_j"] and r[key] is not None]
            if chosen:
                rows.append((f"{seconds:g}", name, *_errors(chosen, key, None, None)))
    headers = ("window, s", "tool", "n", "mean error", "largest", "inside the bound", "median bound")
    return table("Windows compared with the simulated board's true energy", headers, rows)


def _errors(records: list[Record], key: str, unit_j: float | None, bound: str | None) -> tuple[object, ...]:
    """Number, mean and largest relative error, share inside the bound, median bound."""
    known = np.array([record[key] for record in records])
    right = np.array([record["true_j"] if unit_j is None else unit_j * record["units"] for record in records])
    shares = (known - right) / right
    largest = shares[np.argmax(np.abs(shares))]
    if bound is None:
        return len(records), percent(shares.mean()), percent(largest), "", ""
    bounds = np.array([np.nan if record[bound] is None else record[bound] for record in records], dtype=float)
    inside = np.abs(known - right) <= bounds
    return (
        len(records),
        percent(shares.mean()),
        percent(largest),
        f"{inside.mean():.0%}",
        f"{np.nanmedian(bounds):.3g} J",
    )


def train_lines(meter: list[Record]) -> list[str]:
    rows = []
    for train in of_kind(meter, "train"):
        bursts = [r for r in of_kind(meter, "burst") if r["seconds"] == train["seconds"] and r["energy_j"] is not None]
        if train["energy_j"] is None or len(bursts) < 2:
            continue
        mean_j = (train["energy_j"] - train["rest_w"] * train["rest_s"]) / train["bursts"]
        own = np.array([record["energy_j"] for record in bursts])
        inside = np.abs(own - mean_j) <= np.array([record["bound_j"] for record in bursts])
        error_j = own.std(ddof=1) / len(own) ** 0.5
        rows.append((
            f"{train['seconds']:g}", f"{mean_j:.4g}", f"{own.mean():.4g} ± {error_j:.2g}",
            percent(own.mean() / mean_j - 1), f"{inside.mean():.0%} of {len(own)}",
        ))  # fmt: skip
    headers = ("burst, s", "mean in a train, J", "in windows of their own, J", "difference", "inside the bound")
    return table("Bursts in one window and in windows of their own", headers, rows)


def sum_lines(meter: list[Record]) -> list[str]:
    rows = []
    for record in of_kind(meter, "sum"):
        parts = [part["energy_j"] for part in record["parts"]]
        bounds = [part["bound_j"] for part in record["parts"]]
        if None in (record["whole_j"], record["whole_bound_j"], *parts, *bounds):
            continue
        rest_j = record["idle_w"] * record["rest_s"]
        difference_j = record["whole_j"] - sum(parts) - rest_j
        bound_j = record["whole_bound_j"] + sum(bounds)
        rows.append(
            (f"{record['whole_j']:.4g}", f"{sum(parts):.4g} + {rest_j:.4g}", f"{difference_j:+.3g}", f"{bound_j:.3g}")
        )
    return table("Additivity, J", ("whole", "parts + rest", "difference", "sum of the bounds"), rows)


def source_lines(meter: list[Record]) -> list[str]:
    rows = []
    for record in of_kind(meter, "sources"):
        for (name, begin_s), (_, end_s) in pairwise(record["marks"]):
            inside = [row for row in record["rows"] if begin_s + 0.2 <= row[0] <= end_s - 0.1]
            if len(inside) < 5:
                continue
            others = [[row[i] for row in inside if row[i] is not None] for i in (2, 3, 4)]
            rows.append((name, _counter_w(inside), *(f"{np.mean(other):.1f}" if other else "" for other in others)))
    headers = ("while", "counter", "instant (186)", "average (185)", "PowerUsage")
    return table("Power by source, W", headers, rows)


def warning_lines(records: list[Record]) -> list[str]:
    said = [record["warnings"] for record in records if "warnings" in record]
    counts = Counter(code for warnings in said for code in {warning[:4] for warning in warnings})
    return table("Warnings", ("code", f"windows of {len(said)}"), sorted(counts.items()))


# -- networks, runs, tests -----------------------------------------------------------------------------------------


def size_lines(sizes: list[Record]) -> list[str]:
    cells: dict[tuple[str, int, int], list[Record]] = defaultdict(list)
    for record in of_kind(sizes, "size"):
        if record["energy_j"] is not None:
            cells[record["name"], record["side"], record["batch"]].append(record)
    rows = []
    for (name, side, batch), windows in cells.items():
        windows.sort(key=lambda record: record["steps"])
        each = "; ".join(
            f"{r['steps']}: {r['energy_j'] / r['images']:.4g} ± {(r['bound_j'] or np.nan) / r['images']:.2g}"
            for r in windows
        )
        first, last = windows[0], windows[-1]
        if first is last:
            rows.append((name, side, batch, each, "", "", "", "", ""))
            continue
        span = last["steps"] - first["steps"]
        first_j, last_j = first["energy_j"] / first["images"], last["energy_j"] / last["images"]
        slope_j = (last_j - first_j) / span
        slope_s = (last["duration_s"] / last["images"] - first["duration_s"] / first["images"]) / span
        base_j = first_j - slope_j * first["steps"]
        known = PUBLISHED_J.get((name, side)) if batch == 1 else None
        rows.append((
            name, side, batch, each, f"{slope_j:.3g}", f"{base_j:.3g}", f"{base_j + 25 * slope_j:.4g}",
            f"{slope_j / slope_s:.0f}" if slope_s > 0 else "", f"{known:g}" if known else "",
        ))  # fmt: skip
    headers = (
        *("network", "px", "batch", "J/image by steps", "J/step", "J besides", "J/image at 25 steps", "W"),
        "ML.ENERGY, H100, batch 1",
    )
    return table("Real sizes, random weights", headers, rows)


def run_lines(folder: Path) -> list[str]:
    """J/image of each cell, gross and net of rest."""
    cells: dict[str, list[Record]] = defaultdict(list)
    path = folder / "trials.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        trial = json.loads(line)
        if trial["failure"] is None and trial["energy_j"] is not None:
            cells[trial["cell_id"]].append(trial)
    rows = []
    for cell, trials in sorted(cells.items()):
        images = sum(trial["image_count"] * trial["iterations"] for trial in trials)
        gross_j = sum(trial["energy_j"] for trial in trials) / images
        net = [trial["net_energy_j"] for trial in trials]
        net_j = "" if None in net else f"{sum(net) / images:.4g}"
        seconds = sum(trial["duration_s"] for trial in trials) / images
        rows.append((cell, len(trials), f"{gross_j:.4g}", net_j, f"{seconds:.3g}"))
    return table(f"Run {folder.name}", ("cell", "windows", "J/image", "net J/image", "s/image"), rows)


def verdict_lines(path: Path) -> list[str]:
    """Verdicts of the second session compared with the first: any other than a pass is a false alarm."""
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for test in record["tests"]:
        verdict = record["judged"].get(test["nodeid"], {})
        joules = "absent" if test["mean_j"] is None else f"{test['mean_j']:.4g}"
        rows.append((test["nodeid"].rpartition("::")[2], joules, verdict.get("outcome"), verdict.get("reason")))
    return table("pytest, the same twice", ("test", "J per call", "outcome", "reason"), rows)


def junit_lines(files: list[Path]) -> list[str]:
    rows = []
    for file in files:
        suite = ElementTree.parse(file).getroot().find("testsuite")
        if suite is None:
            continue
        bad = [c.get("name", "") for c in suite if c.find("failure") is not None or c.find("error") is not None]
        rows.append((file.stem, suite.get("tests"), suite.get("skipped"), len(bad), ", ".join(bad[:20])))
    return table("Tests", ("file", "tests", "skipped", "failed", "names"), rows)


def failure_lines(records: list[Record]) -> list[str]:
    rows = [
        (r.get("experiment", f"{r.get('name')} {r.get('side')} px, batch {r.get('batch')}"), r["error"])
        for r in of_kind(records, "failed")
    ]
    rows += [(r["experiment"], f"skipped: {r['why']}") for r in of_kind(records, "skipped")]
    return table("Experiments without a result", ("experiment", "reason"), rows)


def stage_lines(stages: list[Record]) -> list[str]:
    rows = [(r["name"], r["outcome"], f"{r.get('seconds', 0):.0f}") for r in of_kind(stages, "stage")]
    return table("Stages", ("stage", "exit code", "seconds"), rows)
