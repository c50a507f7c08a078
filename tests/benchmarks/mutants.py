"""Mutation testing: change one place of a module, run the tests that execute it, and count the changes they notice.

    nice python -m tests.benchmarks.mutants [WORD ...] [--sample N] [--seed N] [--only FILE] [--jobs N]

Needs `pip install cosmic-ray`, which makes most of the changes; `_removals` adds those it lacks. Each mutant is one
change in a copy of `bench/`. It is killed if a test fails or runs out of time, and survives if all pass. The tests are
those of the area (`AREAS`) that execute the changed statement, as a run under coverage shows at the start. WORDs
choose modules by a part of their path; `--sample` takes so many places of each module (default 20, 0 for all), each
with one change, drawn with `--seed`; `--only` repeats mutants whose names a file lists, one per line.
Annotations, decorators of classes and `__all__` are not changed: they have no effect that a test is to notice.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
# the modules of an area, and the tests that are to notice a change in them
AREAS = {
    "bench/perjoule/gating/*.py": ("tests/perjoule/gating",),
    "bench/perjoule/statistics/*.py": ("tests/perjoule/statistics",),
    "bench/perjoule/meters/edges.py": (
        "tests/perjoule/meters/test_edges.py",
        "tests/perjoule/meters/test_edges_salvaged.py",
    ),
}
# a server that has imported what takes long, and is copied for each mutant
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["scipy.special", "scipy.stats", "typer", "pydantic", "hypothesis", "pytest"])
_MEMORY_BYTES = 6 << 30
_Place = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change at one place of a file. `make` returns the changed file, or None if that is not Python."""

    file: str
    place: _Place
    change: str
    make: Callable[[], str | None]
    statement: range

    @property
    def name(self) -> str:
        """Names it in lists: file, line, column and change."""
        return f"{self.file}:{self.place[0]}:{self.place[1]} {self.change}"


@dataclass(frozen=True, slots=True)
class Reach:
    """Which tests execute which lines (line 0: any line of the file), and how long each test takes."""

    tests: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]

    def of(self, mutant: Mutant) -> set[str]:
        """Tests that execute the changed statement; those that use the module where it runs at import."""
        lines = self.tests.get(mutant.file, {})
        tests = set[str]().union(*(lines.get(line, set()) for line in mutant.statement))
        return lines.get(0, set()) if "" in tests else tests


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a file."""
    code = path.read_text(encoding="utf-8")
    tree = ast.parse(code)
    unseen = [_span(node) for node in _without_effect(tree)]
    file = str(path.relative_to(ROOT))
    for place, change, make in (*_replacements(code), *_removals(code, tree)):
        if not any(start <= place < end for start, end in unseen):
            yield Mutant(file=file, place=place, change=change, make=make, statement=_statement(tree, place[0]))


def _replacements(code: str) -> Iterator[tuple[_Place, str, Callable[[], str | None]]]:
    """Changes of operators, numbers and conditions, by Cosmic Ray."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(code)))
    for name in operator_names():
        operator = get_operator(name)
        # ExceptionReplacer fails at `except (A, B)`
        if not operator.arguments() and name not in ("core/NoOp", "core/ExceptionReplacer"):
            places = [start for node in nodes for start, _end in operator().mutation_positions(node)]
            for number, place in enumerate(places):
                change = f"{name.removeprefix('core/')} {number}"
                yield place, change, partial(mutate_code, code, operator(), number)


def _removals(code: str, tree: ast.Module) -> Iterator[tuple[_Place, str, Callable[[], str | None]]]:
    """Statements that call or add, replaced by `pass`; elements of tuples, lists, sets and dicts, left out."""
    lines = code.splitlines(keepends=True)

    def without(place: _Place, end: _Place, new: str) -> str | None:
        before = "".join(lines[: place[0] - 1]) + lines[place[0] - 1].encode()[: place[1]].decode()
        changed = before + new + lines[end[0] - 1].encode()[end[1] :].decode() + "".join(lines[end[0] :])
        try:
            ast.parse(changed)
        except SyntaxError:
            return None
        return changed

    for node in ast.walk(tree):
        place, end = _span(node)
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if is_call or isinstance(node, ast.AugAssign | ast.Raise):
            yield place, "no statement", partial(without, place, end, "pass")
        elements: list[Any] = getattr(node, "keys", None) or getattr(node, "elts", None) or []
        values = node.values if isinstance(node, ast.Dict) else elements
        if not elements or isinstance(getattr(node, "ctx", None), ast.Store):
            continue
        for element, value, following in zip(elements, values, [*elements[1:], None], strict=True):
            if element is not None:
                start = _span(element)[0]
                yield start, "no element", partial(without, start, _span(following or value)[following is None], "")


def _span(node: Any) -> tuple[_Place, _Place]:
    if not hasattr(node, "lineno"):
        return (0, 0), (0, 0)
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _without_effect(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        # `@dataclass(frozen=True)`, `if TYPE_CHECKING:` and `__all__`
        if isinstance(node, ast.ClassDef):
            yield from node.decorator_list
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            yield node
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                yield getattr(node, name)


def _statement(tree: ast.Module, line: int) -> range:
    """The lines of the smallest statement around a line; of a compound one, those before its body."""
    around: list[tuple[int, Any]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            if first <= line <= (node.end_lineno or 0):
                around.append((first, node))
    first, node = max(around, key=lambda found: found[0])
    body = getattr(node, "body", None)
    return range(first, max(body[0].lineno, line + 1) if body else (node.end_lineno or line) + 1)


def sampled(everything: Sequence[Mutant], number: int, seed: int) -> list[Mutant]:
    """One random change at each of `number` random places; at all places if there are fewer. 0: all changes."""
    if not number:
        return list(everything)
    places: dict[_Place, list[Mutant]] = defaultdict(list)
    for mutant in everything:
        places[mutant.place].append(mutant)
    draw = random.Random(f"{seed} {everything[0].file}" if everything else seed)
    chosen = draw.sample(sorted(places), min(number, len(places)))
    fitting = [[m for m in draw.sample(places[p], len(places[p])) if m.make()] for p in sorted(chosen)]
    return [changes[0] for changes in fitting if changes]


class _Chosen:
    """A pytest plugin that runs the chosen tests only, files that are done soon first."""

    def __init__(self, tests: set[str], seconds: dict[str, float]) -> None:
        self.tests, self.seconds = tests, seconds

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]
        cost: dict[str, float] = defaultdict(float)
        for item in items:
            cost[item.path] += self.seconds[item.nodeid]
        items.sort(key=lambda item: (cost[item.path], str(item.path), self.seconds[item.nodeid]))


class _Traced:
    """A pytest plugin that notes which test executes which lines."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.seconds = coverage, defaultdict[str, float](float)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration


def _enter(bench: str, scratch: str) -> None:
    """Import perjoule from `bench`, and keep what is written out of the checkout."""
    assert "perjoule" not in sys.modules
    sys.path[:0] = [bench, str(ROOT / "suites"), str(ROOT / "reports")]
    os.environ["PYTHONPATH"] = os.pathsep.join([bench, str(ROOT / "suites"), str(ROOT / "reports")])
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{scratch}/hypothesis"
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = f"{scratch}/bytecode"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.chdir(ROOT)
    file = os.open(f"{scratch}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)


_QUIET = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")


def _trace(bench: str, scratch: str, tests: tuple[str, ...]) -> None:
    """Run the tests under coverage, and write `reach.json`."""
    _enter(bench, scratch)
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, source=[f"{bench}/perjoule"])
    plugin = _Traced(measured)
    measured.start()
    code = pytest.main([*_QUIET, *tests], plugins=[plugin])
    measured.stop()
    data = measured.get_data()
    reach: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        reach["bench" + file.removeprefix(bench)] = {k: list(set(v)) for k, v in data.contexts_by_lineno(file).items()}
    Path(scratch, "reach.json").write_text(json.dumps([reach, plugin.seconds]), encoding="utf-8")
    os._exit(int(code))


def _test(bench: str, scratch: str, tests: dict[str, float]) -> None:
    """Run the tests against a mutant, in a process that has not imported perjoule yet."""
    _enter(bench, scratch)
    import pytest

    limit = int(30 + 10 * sum(tests.values()))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    files = sorted({test.partition("::")[0] for test in tests})
    code = pytest.main([*_QUIET, *files], plugins=[_Chosen(set(tests), tests)])
    found = sys.modules.get("perjoule")
    os._exit(int(code) if found is None or str(found.__file__).startswith(bench) else 99)


def _run(target: Any, *arguments: Any) -> int:
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


def traced(tests: tuple[str, ...]) -> Reach:
    """Run the tests of an area once on the unchanged code. Raises RuntimeError if one fails."""
    with TemporaryDirectory() as folder:
        bench = _copied(Path(folder))
        if _run(_trace, str(bench), folder, tests):
            raise RuntimeError("the tests fail without a change\n" + Path(folder, "log").read_text()[-2000:])
        lines, seconds = json.loads(Path(folder, "reach.json").read_text())
    reach: dict[str, dict[int, set[str]]] = {}
    for file, contexts in lines.items():
        reach[file] = {int(line): set(found) for line, found in contexts.items()}
        reach[file][0] = set().union(*reach[file].values()) - {""}
    return Reach(reach, seconds)


def _copied(folder: Path) -> Path:
    shutil.copytree(ROOT / "bench", folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "bench"


def outcome(mutant: Mutant, reach: Reach, folder: Path, number: int) -> str:
    """`killed`, or `SURVIVED` with the number of tests that execute it. `number`: another one for each mutant."""
    tests = {test: reach.seconds[test] for test in reach.of(mutant)}
    if not tests:
        return "SURVIVED 0 tests"
    path = folder / mutant.file
    if not path.exists():
        _copied(folder)
    stat = path.stat()
    path.write_text(mutant.make() or "", encoding="utf-8")
    # bytecode is recognised by time and size
    os.utime(path, (number, number))
    code = _run(_test, str(folder / "bench"), str(folder), tests)
    shutil.copyfile(ROOT / mutant.file, path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if code in (0, 5, 99):
        return f"SURVIVED {len(tests)} tests" if not code else f"ERROR {code}"
    return "killed"


def main() -> int:
    """Print each outcome and a score for each area; exits with 1 if a mutant survives."""
    options = _options()
    only = set(options.only.read_text(encoding="utf-8").splitlines()) if options.only else None
    survived = 0
    for pattern, tests in AREAS.items():
        files = [f for f in sorted(ROOT.glob(pattern)) if all(word in str(f) for word in options.words)]
        chosen: list[Mutant] = []
        for file in files:
            everything = list(mutants(file))
            if only is None:
                chosen += sampled(everything, options.sample, options.seed)
            else:
                chosen += [mutant for mutant in everything if mutant.name in only]
        if chosen:
            killed = _killed(chosen, traced(tests), options.jobs)
            survived += len(chosen) - killed
            print(f"{pattern}: {killed} of {len(chosen)} killed (seed {options.seed})", flush=True)
    return int(survived > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def _killed(chosen: Sequence[Mutant], reach: Reach, jobs: int) -> int:
    """Try them, each in the copy of the sources that is free."""
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            (Path(scratch) / str(job)).mkdir()
            free.put(Path(scratch) / str(job))

        def tried(number: int) -> str:
            folder, began = free.get(), time.monotonic()
            try:
                found = outcome(chosen[number], reach, folder, number + 1)
            finally:
                free.put(folder)
            print(f"{chosen[number].name}: {found} ({time.monotonic() - began:.1f} s)", flush=True)
            return found

        return sum(found == "killed" for found in pool.map(tried, range(len(chosen))))


if __name__ == "__main__":
    sys.exit(main())
