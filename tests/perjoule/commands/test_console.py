from __future__ import annotations

import io

import pytest
from rich.console import Console

from perjoule.commands import console


class Clock:
    def __init__(self) -> None:
        self.t_s = 0.0

    def monotonic(self) -> float:
        return self.t_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(console, "time", found)
    return found


def test_the_log_tells_what_is_left_from_what_was_done_here(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A quarter was there before; a quarter took 20 s; so the half that is left takes 40 s."""
    with console.TerminalReporter().stage("measuring", 8, "trials", resumed=0.25) as bar:
        bar.update(4, share=0.25)
        clock.t_s = 20.0
        bar.update(5, "12 J, 10 images, v-004: 1.2 ± 0.1 J/image", share=0.5)
        clock.t_s = 60.0
        bar.update(8, "24 J", share=1.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "measuring: 5/8 trials, about 40 s left; 12 J, 10 images, v-004: 1.2 ± 0.1 J/image",
        "measuring: 8/8 trials; 24 J",
    ]


def test_work_that_will_not_be_done_takes_no_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A quarter took 20 s, and of the other three only one is left."""
    with console.TerminalReporter().stage("measuring", 8, "trials") as bar:
        clock.t_s = 20.0
        bar.expect(4, 0.5)
        bar.update(2, share=0.25)
        bar.update(4, share=0.5)
    assert capsys.readouterr().err.splitlines() == ["measuring: 2/4 trials, about 20 s left", "measuring: 4/4 trials"]


def test_what_is_left_is_told_in_two_units(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with console.TerminalReporter().stage("measuring", 100, "trials") as bar:
        clock.t_s = 45.92
        bar.update(1)
    assert capsys.readouterr().err == "measuring: 1/100 trials, about 1 h 16 min left\n"


def test_counts_serve_where_no_share_is_given(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with console.TerminalReporter().stage("scoring", 4, "scores") as bar:
        clock.t_s = 20.0
        bar.update(1, "lsnr")
    assert capsys.readouterr().err.splitlines() == ["scoring: 1/4 scores, about 1 min left; lsnr"]


def test_a_bar_on_a_terminal_shows_counts_and_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    reporter = console.TerminalReporter()
    reporter.console = Console(file=screen, force_terminal=True, width=160)
    with reporter.stage("measuring", 8, "trials", resumed=0.25) as bar:
        bar.update(4, share=0.25)
        bar.update(5, "12 J, v-004: 1.2 ± 0.1 J/image [x]", share=0.5)
    shown = screen.getvalue()
    for words in ("5/8", "1.2 ± 0.1 J/image [x]", "eta"):
        assert words in shown


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = console.TerminalReporter(quiet=True)
    reporter.message("hello")
    with reporter.stage("measuring", 2, "trials") as bar:
        bar.update(2, "12 J", share=1.0)
    assert capsys.readouterr().err == ""
