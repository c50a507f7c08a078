"""The suites, prompt sets and facts about models that ship with perjoule, by name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from perjoule.weights.catalogue import ModelFacts

_HERE = Path(__file__).parent


def suite_files() -> dict[str, Path]:
    """Suite name -> TOML file."""
    return {file.stem: file for file in sorted((_HERE / "files").glob("*.toml"))}


def prompt_files() -> dict[str, Path]:
    """Prompt set name -> file."""
    return {file.stem: file for file in sorted((_HERE / "prompts").iterdir()) if file.suffix in {".tsv", ".txt"}}


def model_facts() -> dict[str, ModelFacts]:
    """Hub id -> what is known of it, from `catalogue.toml`."""
    from pydantic import TypeAdapter

    table = tomllib.loads((_HERE / "catalogue.toml").read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, ModelFacts]).validate_json(json.dumps(table))


def public_prompts() -> Path:
    """The table of prompt sets that others published."""
    return _HERE / "prompts" / "public.toml"
