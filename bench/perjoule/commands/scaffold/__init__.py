"""What `perjoule init` writes: a suite with its prompts, a CI workflow, a pytest example."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from perjoule.commands.records import Scaffold
from perjoule.files import write_text

FILES = {
    "perjoule.toml": "perjoule.toml",
    "perjoule-prompts.txt": "prompts.txt",
    ".github/workflows/perjoule.yml": "workflow.yml",
    "tests/test_energy.py": "example.py.txt",
}


def write_scaffold(folder: Path) -> Scaffold:
    """Write the files that do not exist yet."""
    written, existing = [], []
    for target, source in FILES.items():
        file = folder / target
        if file.exists() or file.is_symlink():
            existing.append(file)
            continue
        write_text(file, (files("perjoule.commands.scaffold") / source).read_text(encoding="utf-8"))
        written.append(file)
    return Scaffold(written=tuple(written), kept=tuple(existing))
