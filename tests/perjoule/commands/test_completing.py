"""Completion in real interactive shells, each on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from perjoule.commands import completing
from perjoule.gating import baselines

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent
# bells, colours and movements of the cursor
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|[\a\x0e\x0f]")
# what is typed before TAB, and the words that must appear
TYPED = {
    "perjoule re": ("recommend", "report"),
    "perjoule budgetfusion pre": ("predict",),
    "perjoule budgetfusion evaluate runs/first --rule pl": ("plateau",),
    "perjoule route ev": ("evaluate",),
    "perjoule baseline pro": ("promote",),
    "perjoule report --base": ("--baseline",),
    "perjoule run d": ("demo",),
    "perjoule doctor --suite few": ("few-step",),
    "perjoule plan mi": ("mine.toml",),
    "perjoule plan sui": ("suites/other.toml",),
    "perjoule report runs/f": ("runs/first",),
    "perjoule plan demo --from r": ("runs/first",),
    "perjoule frontier runs/first --metric cv": ("cvvdp",),
    "perjoule run demo --meter est": ("estimate",),
    "perjoule gate --baseline ma": ("main",),
    "perjoule gate --baseline runs/f": ("runs/first",),
    "perjoule explain W20": ("W201", "W203"),
    "perjoule import ta": ("table.csv",),  # nothing of ours fits: the shell completes files
}
START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'PS1="> "; eval "$(perjoule completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'PS1="> "; autoload -Uz compinit; compinit -u; eval "$(perjoule completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "perjoule completion fish | source"),
}
# where each shell looks for completions by itself, and what makes it look
STORED = {
    "bash": (".local/share/bash-completion/completions/perjoule", ". /usr/share/bash-completion/bash_completion"),
    "zsh": (".zfunc/_perjoule", "fpath+=~/.zfunc; autoload -Uz compinit; compinit -u"),
    "fish": (".config/fish/completions/perjoule.fish", "true"),
}


class Terminal:
    """A shell on a pseudo-terminal: what is sent is typed."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def read(self, *words: str, after: str = "", seconds: float = 1.0) -> str:
        """What appears after `after` until it holds all words, or for so long."""
        seen, until = after, time.monotonic() + seconds
        while time.monotonic() < until and not (words and all(word in seen for word in words)):
            if select.select([self.file], [], [], 0.1)[0]:
                seen = CONTROL.sub("", seen + os.read(self.file, 65_536).decode(errors="replace"))
        return seen

    def complete(self, typed: str, words: tuple[str, ...]) -> str:
        """Type and press TAB, as often as it takes a shell to show all that fits."""
        self.type("\x15" + typed)
        self.read(typed.rpartition(" ")[2], seconds=5)
        seen = typed
        for _ in range(12):
            self.type("\t")
            # a shell shows what is missing of a word, or whole words
            seen = self.read(*words, after=seen, seconds=2)
            if all(word in seen for word in words):
                break
        return seen

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a user has: a run, suite files, a stored baseline, a table."""
    run = tmp_path / "runs" / "first"
    kept = tmp_path / baselines.FOLDER / "mine" / "key"
    for made in (run, kept, tmp_path / "suites", tmp_path / "home"):
        made.mkdir(parents=True)
    for file in (
        run / "suite.toml",
        run / "environment.json",
        kept / "main.json.gz",
        tmp_path / "mine.toml",
        tmp_path / "suites" / "other.toml",
        tmp_path / "table.csv",
    ):
        file.touch()
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    sources = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sources),
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TERM": "xterm",
    }


@pytest.fixture(params=START)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


def started(command: list[str], first: str, folder: Path, environment: dict[str, str]) -> Terminal:
    terminal = Terminal(command, folder, environment)
    terminal.type(f'{first}; echo SET""UP\n')
    assert "SETUP" in terminal.read("SETUP", seconds=60)
    terminal.read(seconds=0.5)
    return terminal


def test_a_shell_completes_verbs_and_values(shell: str, folder: Path, environment: dict[str, str]) -> None:
    terminal = started(*START[shell], folder, environment)
    try:
        seen = {typed: terminal.complete(typed, words) for typed, words in TYPED.items()}
    finally:
        terminal.close()
    missing = {typed: seen[typed] for typed, words in TYPED.items() if not all(word in seen[typed] for word in words)}
    assert not missing


def test_a_stored_script_is_found_and_answers_the_first_tab(
    shell: str, folder: Path, environment: dict[str, str]
) -> None:
    place, first = STORED[shell]
    if shell == "bash" and not Path("/usr/share/bash-completion/bash_completion").is_file():
        pytest.skip("bash-completion is not installed")
    script = subprocess.run(
        ["perjoule", "completion", shell], env=environment, capture_output=True, text=True, check=True, cwd=folder
    ).stdout
    file = folder / "home" / place
    file.parent.mkdir(parents=True)
    file.write_text(script)
    command = [word for word in START[shell][0] if word != "--no-config"]
    terminal = started(command, first, folder, environment)
    try:
        terminal.type("perjoule rec\t")
        assert "recommend" in terminal.read("recommend", seconds=30)
    finally:
        terminal.close()


@pytest.mark.parametrize(
    "words",
    ["perjoule\nre", "perjoule\nrun\n", "perjoule\nfrontier\nr\n--metric\n", "perjoule\ngate\n--baseline\n"],
)
def test_completing_imports_nothing_heavy(words: str, folder: Path, environment: dict[str, str]) -> None:
    code = (
        "import sys, perjoule.cli\n"
        "try: perjoule.cli.main()\n"
        "finally: print(sorted({'torch', 'diffusers', 'polars', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    asked = {"_PERJOULE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count("\n"))}
    run = [sys.executable, "-c", f"import sys; sys.argv[0] = 'perjoule'\n{code}"]
    done = subprocess.run(run, env=environment | asked, cwd=folder, capture_output=True, text=True, check=True)
    *found, heavy = done.stdout.splitlines()
    assert found
    assert heavy == "[]"


def test_the_store_is_that_of_the_baselines() -> None:
    assert completing.STORED == baselines.FOLDER


def test_a_home_of_nobody_completes_to_nothing() -> None:
    assert completing.runs("~nobody-of-this-name/x") == []


def test_a_folder_that_may_be_listed_and_not_entered_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "locked").mkdir()
    is_dir = Path.is_dir

    def refused(path: Path) -> bool:  # a test may run as root, whom nothing refuses
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refused)
    assert "demo" in completing.suites("")
    completing.runs("")


def test_paths_are_found_two_folders_deep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "a" / "b" / "c").mkdir(parents=True)
    for place in ("a/b/deep.toml", "a/b/c/deeper.toml", ".hidden.toml"):
        (folder / place).touch()
    offered = [name for name in completing.suites("") if name.endswith(".toml")]
    assert offered == ["mine.toml", "suites/other.toml"]
    assert "a/b/deep.toml" in completing.suites("a/")
    assert "a/b/c/deeper.toml" in completing.suites("a/b/")
    assert ".hidden.toml" in completing.suites(".h")
    assert completing.runs("runs/") == ["runs/first"]
    assert completing.runs(f"{folder}/runs/f") == [f"{folder}/runs/first"]
    assert completing.runs("nowhere/") == []
    assert completing.baselines_and_runs("") == ["main", "runs/first"]
