"""Remove each check of the gate once: does a test notice?

    nice python -m tests.benchmarks.gate_mutants [WORD ...]

Every mutant is a copy of `bench/` with one text replaced; the tests of the gate run against it. It is killed if a test
fails, and survives if all pass. A mutant whose text is gone, or that cannot be imported, is an error: the list below
has to follow the code. With WORDs only the mutants whose names contain one of them run. Takes about 15 minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
GATING = "perjoule/gating"
_AT_A_TIME = 4
# a server that has imported what takes long, and is copied for each mutant
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["scipy.special", "scipy.stats", "typer", "pydantic", "hypothesis", "pytest"])
TESTS = [f"tests/perjoule/gating/test_{name}.py" for name in ("refusals", "margins", "gate", "window_groups")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A text of a file below `bench/`, which must occur once, and what takes its place.

    `likely`: which tests to try first (pytest's -k).
    """

    name: str
    file: str
    old: str
    new: str
    likely: str

    def apply(self, bench: Path) -> None:
        """Edit the copy. Raises ValueError if the text does not occur exactly once."""
        (bench / self.file).write_text(self.edited(bench), encoding="utf-8")

    def edited(self, bench: Path) -> str:
        """The file with the text replaced. Raises ValueError if the text does not occur exactly once."""
        text = (bench / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has {text.count(self.old)} times: {self.old!r}")
        return text.replace(self.old, self.new)


def mutants() -> Iterator[Mutant]:
    """Every check, removed; tuples of codes and keys are taken from the code, so that a new one is tried as well."""
    yield from _evidence()
    yield from _decisions()
    yield from _margins()


def _evidence() -> Iterator[Mutant]:
    from perjoule.gating import disturbances, evidence
    from perjoule.types import Variant

    file, likely = f"{GATING}/disturbances.py", "TestInvalidWindows"

    def mutant(name: str, old: str, new: str) -> Mutant:
        return Mutant(name=name, file=file, old=old, new=new, likely=likely)

    line = "INVALIDATING = (" + ", ".join(f'"{code}"' for code in disturbances.INVALIDATING) + ")"
    for code in disturbances.INVALIDATING:
        yield mutant(f"code {code}", line, line.replace(code, "W---"))
    for word in ("slowdown", "brake", "sync boost"):
        yield mutant(f"W261 {word}", "(slowdown|brake|sync boost)", "(slowdown|brake|sync boost)".replace(word, "-"))
    yield mutant("W261", " or _BRAKED.search(text)", "")
    yield mutant("codes anywhere in the text", "text.startswith(INVALIDATING)", "any(c in text for c in INVALIDATING)")
    file = f"{GATING}/evidence.py"
    yield mutant("no window tolerated", "_TOLERATED_SHARE = 0.05", "_TOLERATED_SHARE = 0.0")
    yield mutant("a tenth tolerated", "_TOLERATED_SHARE = 0.05", "_TOLERATED_SHARE = 0.1")
    yield mutant("every window tolerated", "_TOLERATED_SHARE = 0.05", "_TOLERATED_SHARE = 1.0")
    yield mutant("exactly a twentieth refused", "if len(marked) > _TOL", "if len(marked) >= _TOL")
    yield mutant("tolerated windows unnamed", "if marked:  # few", "if False:  # few")
    likely = "TestMissing or TestNeverExitZero"
    yield mutant("zero joules", "if len(negative):", "if False:")
    yield mutant("zero joules, negative only", 'pl.col("energy_j") <= 0)', 'pl.col("energy_j") < 0)')
    yield mutant("no finished trial", "    if empty:\n", "    if False:\n")
    yield mutant("missing cells", "*_missing_cells(baseline, candidate), ", "")
    yield mutant("missing prompts", ", *_missing_prompts(baseline, candidate)", "")
    yield mutant("missing scores", "    missing += _missing_scores(baseline, candidate, metric)\n", "")
    yield mutant("missing energy", "        missing += _missing_energy(name, run)\n", "")
    yield mutant("invalid windows", "        invalid += _invalid(name, run)\n", "")
    both = '    for name, run in (("baseline", baseline), ("candidate", candidate)):\n        invalid'
    for side in ("baseline", "candidate"):
        one = f'    for name, run in (("{side}", {side}),):\n        invalid'
        yield mutant(f"windows and energy of the {side} only", both, one)
        one = f'    for name, run in (("{side}", {side}),):\n        scores'
        yield mutant(f"scores of the {side} only", both.replace("invalid", "scores"), one)
    yield mutant("seeds", 'after, on=["cell_id", "prompt_id", "seed"]', 'after, on=["cell_id", "prompt_id"]')
    yield mutant("metric not scored", "if metric not in run.metrics or scores.is_empty():", "if False:")
    yield mutant("scores without a number", "if len(bad) or len(images):", "if len(images):")
    yield mutant("images without a score", "if len(bad) or len(images):", "if len(bad):")
    yield mutant("failed trials", "    if len(failed):\n", "    if False:\n")
    yield mutant("windows without joules", "    if len(without_joules):\n", "    if False:\n")
    likely = "TestComparability"
    yield mutant("comparability", "if old != new and not", "if False and not")
    yield mutant("declared changes", '.rsplit(".", 1)[-1]} & change', '.rsplit(".", 1)[-1]} & set()')
    for name, keys in (("both systems", "*a, *b"), ("the baseline's", "*a"), ("the candidate's", "*b")):
        if keys != "*a, *b":
            yield mutant(f"system keys: {name} only", "for key in {*a, *b}:", f"for key in {{{keys}}}:")
    yield mutant("system keys", "for key in {*a, *b}:", "for key in ():")
    for name in ("_PROTOCOL_KEYS", "_METRIC_KEYS", "_TRIAL_KEYS"):
        keys = getattr(evidence, name)
        line = f"{name} = (" + ", ".join(f'"{key}"' for key in keys) + ")"
        for key in keys:
            fewer = "".join(f'"{other}", ' for other in keys if other != key)
            yield mutant(f"{name} {key}", line, f"{name} = ({fewer})")
    yield mutant("metric options", 'yield f"metrics.{metric}.options", options[0], options[1]', "pass")
    line = "_NOT_COMPARED = (" + ", ".join(f'"{key}"' for key in evidence._NOT_COMPARED) + ")"
    for field in fields(Variant):
        if field.name not in evidence._NOT_COMPARED:
            yield mutant(f"variant {field.name}", line, line.replace(")", f', "{field.name}")'))
    yield mutant("advisory", "if spec is not None and spec.advisory:", "if False:")


def _decisions() -> Iterator[Mutant]:
    file, likely = f"{GATING}/decide.py", "TestPrice"

    def mutant(name: str, old: str, new: str) -> Mutant:
        return Mutant(name=name, file=file, old=old, new=new, likely=likely)

    yield mutant(
        "price verdict", "    if benefit is not None:\n        if benefit.low", "    if False:\n        if benefit.low"
    )
    yield mutant("price passes by its value", "benefit.low is not None and benefit.low >= 0", "benefit.value >= 0")
    yield mutant(
        "price never fails", "benefit.high is not None and benefit.high < 0 and not session_unknown else", "False else"
    )
    yield mutant(
        "price fails across sessions", "benefit.high < 0 and not session_unknown else", "benefit.high < 0 else"
    )
    yield mutant("price without the scatter of sessions", "if extra else 0.0", "if False else 0.0")
    likely = "TestCounts or TestSmallSamples or test_gate"
    yield mutant("one pair of energy", "if len(energy) < 2 or len(quality) < 2:", "if len(quality) < 2:")
    yield mutant("cells", "or (len(cells) > 1 and any(cell.failed for cell in cells))", "")
    yield mutant("unknown scatter of sessions", "    if session_unknown:\n", "    if False:\n")
    yield mutant("known scatter of sessions", 'if config.mode == "stored" else 0.0', "if False else 0.0")
    yield mutant("energy passes by its value", '"pass" if high <= margin', '"pass" if value <= margin')
    yield mutant("quality passes by its value", "low >= -margin", "value >= -margin")
    yield mutant(
        "one axis is enough",
        "if energy.outcome == quality.outcome == ",
        'if "pass" in (energy.outcome, quality.outcome) or "" == ',
    )
    yield mutant("failures", 'if "fail" in (energy.outcome, quality.outcome) or', "if")
    yield mutant("open verdicts", "    if problems:\n        energy, quality", "    if False:\n        energy, quality")
    yield mutant(
        "decided runs refused",
        '    if verdict.verdict == "fail" or verdict.net_benefit_j',
        "    if verdict.net_benefit_j",
    )
    yield mutant(
        "priced runs refused",
        'if verdict.verdict == "fail" or verdict.net_benefit_j is not None',
        'if verdict.verdict == "fail"',
    )
    yield mutant("axes that cannot fail refused", "return low < -good * margin < high", "return True")
    yield mutant("sessions in the prompts needed", "alpha)) ** 2 - extra\n    if room", "alpha)) ** 2\n    if room")
    likely = "TestIdenticalImages or TestCounts"
    yield mutant("identical images unnamed", "((IDENTICAL,) if pairs.identical_images else ())", "()")
    file = f"{GATING}/pairing.py"
    yield mutant(
        "copies of a window",
        "units = window_units(baseline, candidate)",
        'units = window_units(baseline, candidate).with_columns(unit="prompt_id")',
    )
    yield mutant("provenance of the baseline", "provenances(baseline, candidate)", "provenances(candidate)")
    yield mutant("identity of any number", "len(joined) == len(before) and ", "")
    yield mutant("identity without a look", 'bool((joined["sha256"] == joined["sha256_candidate"]).all())', "True")
    yield mutant("identity without digests", ' or before["sha256"].null_count()', "")
    file, likely = f"{GATING}/__init__.py", "TestMissing or TestSmallSamples or test_gate"
    yield mutant("the gate's error", "    require_resolvable(verdict)\n", "")
    yield mutant("evidence", "    if findings.blocking:\n", "    if False:\n")
    file = f"{GATING}/records.py"
    for word, code in (("fail", 1), ("inconclusive", 3), ("invalid", 4)):
        yield mutant(f"exit code of {word}", f'"{word}": {code}', f'"{word}": 0')
    yield mutant("missing blocks", "bool(self.missing or ", "bool(")
    yield mutant("incomparable blocks", " or self.incomparable or", " or")
    yield mutant("invalid blocks", " or self.invalid)", ")")
    file, likely = f"{GATING}/render.py", "TestPrice"
    yield mutant(
        "axes fail under a price",
        "        elif priced:\n            continue",
        "        elif False:\n            continue",
    )


def _margins() -> Iterator[Mutant]:
    file, likely = f"{GATING}/margins.py", "test_margins"

    def mutant(name: str, old: str, new: str) -> Mutant:
        return Mutant(name=name, file=file, old=old, new=new, likely=likely)

    yield mutant("imported metrics looked up", " or spec.weights_digest == IMPORTED", "")
    yield mutant("the larger margin", "min(declared)", "max(declared)")
    yield mutant("margins on another scale", "if installed is None or (", "if False and (")
    yield mutant("margins that are none", 'if not 0 < value < float("inf"):', "if False:")
    yield mutant("old runs", "return installed.margin", "return None")
    file = f"{GATING}/__init__.py"
    yield mutant("a margin is needed", "        require_margin(name, margins, baseline)\n", "        pass\n")
    file = "perjoule/shares.py"
    yield mutant("bare numbers", "if number >= 1 and not isinstance(value, Share):", "if False:")
    yield mutant("bare 1", "if number >= 1 and", "if number > 1 and")
    yield mutant("negative shares", "if not 0 <= number < math.inf:", "if math.isnan(number):")
    file = "perjoule/suite/reading.py"
    checked = '_share(protocol.max_uncertainty, f"{where}: protocol.max_uncertainty")'
    yield mutant("shares of suites", checked, "pass")
    file = "perjoule/meters/base.py"
    yield mutant("shares of windows", 'below_one(max_uncertainty, "max_uncertainty")', "pass")
    file = f"{GATING}/records.py"
    yield mutant("margins of zero", 'self.margin_quality is None or 0 < self.margin_quality < float("inf")', "True")
    yield mutant("shares of Python", 'share(getattr(self, name), f"gate: {name}")', "float(getattr(self, name))")


def tried(mutant: Mutant) -> str:
    """`killed`, `SURVIVED` or `ERROR` with the reason."""
    with TemporaryDirectory() as folder:
        bench = Path(folder) / "bench"
        shutil.copytree(ROOT / "bench", bench, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            mutant.apply(bench)
        except ValueError as error:
            return f"ERROR {error}"
        log, code = Path(folder) / "log", 0
        for options in (["-k", mutant.likely], []):
            process = _CONTEXT.Process(target=_test, args=(str(bench), options, str(log)))
            process.start()
            process.join()
            code = process.exitcode or 0
            if code:
                break
        said = log.read_text(errors="replace")[-2000:]
    if code == 1:
        return "killed"
    return "SURVIVED" if code == 0 else f"ERROR pytest exits with {code}\n{said}"


def _test(bench: str, options: list[str], log: str) -> None:
    """Run pytest on a mutant, in a process that has not imported perjoule yet."""
    import pytest

    assert "perjoule" not in sys.modules
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.dont_write_bytecode = True
    sys.path.insert(0, bench)
    os.environ["PYTHONPATH"] = os.pathsep.join([bench, str(ROOT / "suites"), str(ROOT / "reports")])
    os.chdir(ROOT)
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *options, *TESTS])
    found = sys.modules["perjoule.gating"].__file__
    os._exit(int(code) if str(found).startswith(bench) else 99)


def main(*words: str) -> int:
    """Try them all; exits with 1 unless every one is killed."""
    chosen = [m for m in mutants() if not words or any(word in m.name for word in words)]
    killed = 0
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for mutant, outcome in zip(chosen, pool.map(tried, chosen), strict=True):
            killed += outcome == "killed"
            print(f"{mutant.name}: {outcome}", flush=True)
    print(f"{killed} of {len(chosen)} killed")
    return int(killed != len(chosen))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
