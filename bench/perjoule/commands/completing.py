"""Values that the shell completes: suites, runs, metrics, meters, baselines and warning codes.

Each function takes the beginning of a word and returns possible words. The functions run at every press of TAB, so they
import nothing heavy, and they read names of files but never their content. If nothing fits, the shell completes file
names.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from perjoule import registry

# search folders to this depth, so that `runs/demo` and `suites/mine/fast.toml` are found without walking the disk
_DEPTH = 2
_MOST = 200
# the same as perjoule.gating.baselines.FOLDER, whose module imports polars; a test compares the two
STORED = Path(".perjoule") / "baselines"


# zsh reads a file of its function path when the command is completed first, and expects an answer from it at once
_ZSH_ON_LOADING = """
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _perjoule_completion "$@"
fi"""


def script(shell: str) -> str:
    """Return the completion script of a shell: `bash`, `zsh` or `fish`."""
    from typer._completion_shared import get_completion_script  # its public home does not export it by name

    text = get_completion_script(prog_name="perjoule", complete_var="_PERJOULE_COMPLETE", shell=shell)
    return text + _ZSH_ON_LOADING if shell == "zsh" else text


def suites(incomplete: str) -> list[str]:
    """Built-in suites and TOML files."""
    return [*sorted(registry.merged_files("suites")), *_paths(incomplete, _is_toml)]


def runs(incomplete: str) -> list[str]:
    """Run directories."""
    return _paths(incomplete, _is_run)


def baselines(incomplete: str) -> list[str]:
    """Stored baselines by name."""
    return sorted({file.name.removesuffix(".json.gz") for file in STORED.glob("*/*/*.json.gz")})


def baselines_and_runs(incomplete: str) -> list[str]:
    """Baselines and runs, for `--baseline`."""
    return [*baselines(incomplete), *runs(incomplete)]


def metrics(incomplete: str) -> list[str]:
    """Registered metrics."""
    return sorted(registry.registered("metrics"))


def meters(incomplete: str) -> list[str]:
    """Meters; for `replay:FILE` only `replay:`."""
    from perjoule.meters import METER_NAMES

    return [head + colon for head, colon, _ in (name.partition(":") for name in METER_NAMES)]


def codes(incomplete: str) -> list[tuple[str, str]]:
    """Warning codes with what they mean."""
    from perjoule.warnings import WARNINGS

    return [(code, entry.meaning) for code, entry in WARNINGS.items()]


def _is_toml(path: Path) -> bool:
    return path.suffix == ".toml" and path.is_file()


def _is_run(path: Path) -> bool:
    return (path / "suite.toml").is_file() and (path / "environment.json").is_file()


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[str]:
    """The paths that `incomplete` may become, at most `_MOST`; hidden ones only if a dot was typed."""
    typed, slash, start = incomplete.rpartition("/")
    names: list[str] = []

    def look(folder: str, start: str, depth: int) -> None:
        try:
            entries = sorted(Path(folder or ".").expanduser().iterdir())
        except (OSError, RuntimeError):  # RuntimeError: ~name of nobody
            return
        for entry in entries:
            if len(names) >= _MOST:
                return
            if not entry.name.startswith(start) or (entry.name.startswith(".") and not start.startswith(".")):
                continue
            with suppress(PermissionError):  # a folder may be listed but not entered
                if wanted(entry):
                    names.append(folder + entry.name)
                elif depth < _DEPTH and entry.is_dir():
                    look(f"{folder}{entry.name}/", "", depth + 1)

    look(typed + slash, start, 1)
    return names
