"""Built-in suites, prompt sets and facts about models, by name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from perjoule.weights.catalogue import ModelFacts

_HERE = Path(__file__).parent


def suite_files() -> dict[str, Path]:
    """Return the TOML files of suites by name."""
    return {file.stem: file for file in sorted((_HERE / "files").glob("*.toml"))}


def prompt_files() -> dict[str, Path]:
    """Return the files of prompt sets by name."""
    return {file.stem: file for file in sorted((_HERE / "prompts").iterdir()) if file.suffix in {".tsv", ".txt"}}


def model_facts() -> dict[str, ModelFacts]:
    """Return the facts about models by hub id, from `catalogue.toml`."""
    from pydantic import TypeAdapter

    table = tomllib.loads((_HERE / "catalogue.toml").read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, ModelFacts]).validate_json(json.dumps(table))


def public_prompts() -> Path:
    """Return the table of prompt sets published by others."""
    return _HERE / "prompts" / "public.toml"
