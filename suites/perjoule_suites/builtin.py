"""The suites and prompt sets that ship with perjoule, by name."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def suite_files() -> dict[str, Path]:
    """Suite name -> TOML file."""
    return {file.stem: file for file in sorted((_HERE / "files").glob("*.toml"))}


def prompt_files() -> dict[str, Path]:
    """Prompt set name -> file."""
    return {file.stem: file for file in sorted((_HERE / "prompts").iterdir()) if file.suffix in {".tsv", ".txt"}}


def public_prompts() -> Path:
    """The table of prompt sets that others published."""
    return _HERE / "prompts" / "public.toml"
