from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from perjoule_reports.drawing.canvas import render
sys.stdout.write(render(lambda axes: axes.plot([1, 2], [3, 4], label="a"), (3.0, 2.0)))
"""


def drawn(folder, **more):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)} | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_matplotlibrc_of_the_working_directory_changes_no_figure_and_runs_nothing(tmp_path):
    """`text.usetex` makes matplotlib run `latex` and `dvipng`."""
    evil, plain, programs = tmp_path / "evil", tmp_path / "plain", tmp_path / "programs"
    for folder in (evil, plain, programs):
        folder.mkdir()
    for name in ("latex", "dvipng", "dvisvgm", "kpsewhich", "gs", "pdflatex", "luatex"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\nexit 1\n")
        (programs / name).chmod(0o755)
    (evil / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 9\nfont.size: 30\naxes.facecolor: red\n")
    assert drawn(evil, PATH=f"{programs}:{os.environ['PATH']}") == drawn(plain)
    assert not (tmp_path / "sprung").exists()
