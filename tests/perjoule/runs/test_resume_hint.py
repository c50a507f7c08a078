"""The command that continues a run is a whole one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.runs.resume_hint import resume_command

WHOLE = "perjoule run r/suite.toml --out r --resume"
GATE = "perjoule gate --baseline main.toml --suite pr.toml --sequential"


@pytest.mark.parametrize(
    ("given_words", "expected"),
    [
        ("perjoule run demo", WHOLE),
        ("", WHOLE),
        (
            "perjoule run demo --limit 4 --executor ray --address 10.0.0.1:6379 --out r --quiet",
            f"{WHOLE} --executor ray --address 10.0.0.1:6379",
        ),
        ("perjoule run demo --meter=work:a --offline", f"{WHOLE} --meter=work:a --offline"),
        ("perjoule run demo --max-joules 5kJ --meter nvml", f"{WHOLE} --max-joules 5kJ --meter nvml"),
        ("pytest -- --meter work", WHOLE),
        ("perjoule run demo --meter", f"{WHOLE} --meter ''"),
        (f"{GATE} --margin-quality 0.1", f"{GATE} --margin-quality 0.1 --out r --resume"),
        (f"{GATE} --out=r --meter work", f"{GATE} --out=r --meter work --resume"),
        (f"{GATE} --resume --out r", f"{GATE} --resume --out r"),
    ],
)
def test_what_a_run_must_be_continued_with_is_taken_over(given_words: str, expected: str) -> None:
    assert resume_command(Path("r"), shlex.split(given_words)) == expected


def test_a_spent_budget_is_left_out_and_failed_trials_are_repeated_on_request() -> None:
    command = ["perjoule", "run", "demo", "--max-joules=5", "--max-minutes", "2", "--executor", "ray"]
    assert resume_command(Path("r"), command, budget=False) == f"{WHOLE} --executor ray"
    assert resume_command(Path("r"), [], retry_failed=True) == f"{WHOLE} --retry-failed"


@given(st.text(st.characters(exclude_characters="\0/"), min_size=1).filter(lambda name: name not in {".", ".."}))
def test_a_shell_reads_the_path_as_it_is(name: str) -> None:
    words = shlex.split(resume_command(Path(name), []))
    assert words[words.index("--out") + 1] == name
