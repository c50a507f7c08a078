"""The command that continues a run is a whole one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import RunError
from perjoule.runs.resume_hint import recorded_command, refusal, resume_command
from perjoule.runs.writer import differing_keys

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


def environment(meter: str, name: str, device: str = "AMD EPYC", **more: Any) -> dict[str, Any]:
    return {"meter": {"name": name}, "comparability": {"device": device, "meter": meter, **more}}


PROFILE = environment("work", "work:cpu", "profile-1")


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (
            environment("estimate", "estimate"), PROFILE,
            r"with this meter: meter was 'estimate' and is 'work': add --meter estimate, or choose another --out",
        ),
        (
            PROFILE, environment("work", "work:a", "profile-2"),
            r"device was 'profile-1' .*: add --meter work:cpu, with the profile as it was, or",
        ),
        (
            environment("nvml", "replay:my log.csv"), PROFILE,
            r"with this meter: meter was 'nvml' and is 'work': add --meter 'replay:my log\.csv', or",
        ),
        (
            environment("nvml", "nvml:board-1", "A100"), environment("nvml", "nvml:board-2", "H100"),
            r"resumed here: device was 'A100' and is 'H100'; use the same system, or choose another --out",
        ),
        (
            environment("rapl", "rapl", torch="2.1"), environment("rapl", "rapl", torch="2.2"),
            r"resumed here: torch was '2\.1' and is '2\.2'; use the same system",
        ),
        ({**PROFILE, "meter": None}, environment("rapl", "rapl"), r"resumed here: device was 'profile-1' and is"),
    ],
)  # fmt: skip
def test_a_run_names_its_meter_if_another_one_would_continue_it(
    before: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    with pytest.raises(RunError, match=f"^r cannot be resumed {words}" if words.startswith("with") else words):
        raise RunError(refusal(Path("r"), before, differing_keys(before, now)))


def test_a_recorded_command_does_not_name_another_program() -> None:
    assert resume_command(Path("r"), ["rm", "gate", "-rf"]) == "perjoule gate -rf --out r --resume"
    assert recorded_command({"command": ["perjoule", 3]}) == ["perjoule", "3"]
    assert recorded_command({"command": "rm -rf"}) == recorded_command({}) == []
