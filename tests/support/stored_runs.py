"""Synthetic runs with pictures on disk, as `perjoule run` leaves them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from perjoule.files import write_json, write_json_lines, write_parquet
from perjoule.runs.directory import Run, load_run
from perjoule.suite.reading import write_suite
from tests.support.synthetic import make_run


def stored_run(folder: Path, **more: Any) -> Run:
    """Write a synthetic run, see `make_run`, and open it."""
    settings: dict[str, Any] = {"prompts": 6, "ladder": (1, 4, 12), "seeds": (1,)} | more
    made = make_run(folder, **settings)
    write_suite(made.suite, folder / "suite.toml")
    write_json(folder / "environment.json", made.environment)
    write_json_lines(folder / "prompts.jsonl", map(asdict, made.prompt_set))
    for name in ("trials", "images", "scores", "points"):
        write_parquet(getattr(made, name), folder / f"{name}.parquet")
    write_json(folder / "metrics.json", {"schema": 1, "metrics": [asdict(spec) for spec in made.metrics.values()]})
    return load_run(folder)
