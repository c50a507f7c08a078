from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perjoule import cli
from tests.support.suites import suite_text

pytestmark = pytest.mark.slow

SUITE = suite_text(
    {"steps": [1, 3, 6], "guidance": 3.0},
    protocol={"seeds": [1, 2], "batch_size": 2, "idle_s": 0.1, "threads": 1},
    metrics=("scene", "lsnr", "cvvdp"),
)
PROMPTS = "a large red circle on a white ground\na blue star left of a green ring on a black ground\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    file = tmp_path / "suite.toml"
    file.write_text(SUITE)
    return file


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the command in this process. -> (exit code, stdout, stderr)"""
    before, at_interrupt = sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = ["perjoule", *arguments]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
        signal.signal(signal.SIGINT, at_interrupt)  # after an interruption the process is meant to end
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("guidance", "guidence", 2, ["unknown key 'variants[0].guidence'", "did you mean 'guidance'"]),
        ("batch_size = 2", 'batch_size = "2"', 2, ["protocol.batch_size = '2'", "integer"]),
        ("steps = [1, 3, 6]", "steps = [0]", 2, ["0 is out of range"]),
        ("steps = [1, 3, 6]", "steps = [1000000]", 2, ["1000000 is out of range"]),
        ("builtin:sd-tiny", "builtin:sd-tni", 2, ["variants[0].model", "did you mean 'sd-tiny'"]),
        ("builtin:sd-tiny", "no-such/model", 2, ["variants[0].model = 'no-such/model'", "cannot be loaded"]),
        ('"lsnr", "cvvdp"]', '"lsnr", "cvdp"]', 2, ["unknown metric 'cvdp'", "did you mean 'cvvdp'"]),
        ('definition = "b"', 'defintion = "b"', 2, ["defintion", "did you mean 'definition'"]),
        ("guidance = 3.0", 'scheduler = "DDIMSchedule"', 2, ["variants[0].scheduler", "DDIMScheduler"]),
        (
            "guidance = 3.0",
            'guidance = 3.0\n[[variants]]\nname = "b"\nmodel = "builtin:sd-tiny"\nsteps = [1]\nscheduler = "DDIM"',
            2,
            ["variants[1].scheduler = 'DDIM'"],
        ),
        ("prompts.txt", "none.txt", 2, ["prompts.source = 'none.txt'", "no such file"]),
    ],
)
def test_a_bad_suite_is_one_clear_error_and_leaves_nothing(
    suite: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: int, words: list[str]
) -> None:
    suite.write_text(SUITE.replace(old, new, 1))
    out = suite.parent / "run"
    found, stdout, stderr = call("run", str(suite), "--out", str(out), "--quiet", capsys=capsys)
    assert found == code
    assert stdout == ""
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr
    assert not out.exists()


def test_more_bad_requests(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    empty = suite.with_name("empty.toml")
    empty.write_text(SUITE.replace("prompts.txt", "empty.txt"))
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "environment.json").write_text('{"suite_folder": true}')
    (tmp_path / "stored" / "suite.toml").write_text(SUITE)
    folder = suite.with_name("folder.toml")
    folder.write_text(SUITE.replace("builtin:sd-tiny", str(tmp_path / "pipeline")))
    out = ["--out", str(tmp_path / "run")]
    cases = [
        (["run", str(empty), *out], 2, "contains no prompt"),
        (["run", str(folder), *out], 2, "model_index.json is missing"),
        (["run", str(suite), *out, "--meter", "nvlm"], 2, "did you mean 'nvml'"),
        (["run", str(suite), *out, "--limit", "0"], 2, "at least 1 prompt"),
        (["run", str(suite), *out, "--limit", "9"], 2, "limit = 9"),
        (["run", str(suite), "--out", str(tmp_path / "full")], 2, "exists already"),
        (["run", "dmeo", *out], 2, "did you mean 'demo'"),
        (["frontier", str(tmp_path / "full")], 4, "is not a run directory"),
        (["report", str(tmp_path / "nowhere")], 4, "does not exist"),
        (["score", str(tmp_path / "full")], 4, "is not a run directory"),
        (["plan", str(tmp_path / "stored" / "suite.toml")], 4, "suite_folder = True: must be the path of a folder"),
        (["explain", "W999"], 2, "unknown warning code"),
        (["run"], 2, "SUITE"),
        (["rnu"], 2, "rnu"),
    ]
    for arguments, code, words in cases:
        found, _, stderr = call(*arguments, capsys=capsys)
        assert (found, words in stderr) == (code, True), (arguments, stderr)
        assert "Traceback" not in stderr
    assert not (tmp_path / "run").exists()


def test_a_date_that_libraries_would_trip_over_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    found, _, stderr = call("list", "metrics", capsys=capsys)
    assert (found, "SOURCE_DATE_EPOCH = 'today': must be whole seconds" in stderr) == (2, True)


def test_no_space_is_said_before_anything_is_written(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perjoule.running.pipeline.free_bytes", lambda path: 1_000_000)
    found, _, stderr = call("run", str(suite), "--out", str(tmp_path / "run"), "-q", capsys=capsys)
    assert found == 4
    assert "1 MiB free" in stderr
    assert not (tmp_path / "run").exists()


def test_a_full_disk_in_the_middle_keeps_what_was_done(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from perjoule.runs.directory import load_run
    from perjoule.runs.stored import Row
    from perjoule.runs.writer import RunWriter
    from perjoule.types import Trial

    append = RunWriter.append

    def full_after_two(self: RunWriter, trial: Trial) -> Row:
        if len(self.done) == 2:
            raise OSError(28, "No space left on device")
        return append(self, trial)

    run = tmp_path / "run"
    monkeypatch.setattr(RunWriter, "append", full_after_two)
    found, _, stderr = call("run", str(suite), "--out", str(run), "-q", capsys=capsys)
    assert found == 74
    assert "No space left on device" in stderr
    assert load_run(run).trials.height == 2
    monkeypatch.setattr(RunWriter, "append", append)
    assert call("run", str(suite), "--out", str(run), "-q", "--resume", capsys=capsys)[0] == 0
    assert load_run(run).trials.height == 6


def test_plan_list_schema_completion(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("plan", str(suite), "--json", capsys=capsys)
    plan = json.loads(out)
    assert code == 0
    assert (plan["images"], plan["trials"], plan["evaluations"]) == (12, 6, 2 * 4 * (1 + 3 + 6))
    text = call("plan", str(suite), capsys=capsys)[1]
    assert "12 images in 6 trials" in text
    assert "of images of 64 × 64 px" in text
    assert plan["disk_bytes"] < plan["disk_bytes_at_most"] < 12 * 10_000
    # nothing is published about tiny models, so their work is counted
    assert "energy, ESTIMATED: " in text
    assert "note: the joules are those of counted work" in text
    assert "--calibrate meters a few images" in text
    assert call("run", str(suite), "--dry-run", capsys=capsys)[1] == text
    for what in ("suites", "variants", "prompts", "metrics", "meters"):
        assert json.loads(call("list", what, "--json", capsys=capsys)[1])[what]
        assert call("list", what, capsys=capsys)[0] == 0
    assert "suite" in json.loads(call("schema", capsys=capsys)[1])
    assert "_PERJOULE_COMPLETE" in call("completion", "bash", capsys=capsys)[1]


def test_a_calibrated_plan_and_what_cannot_fit_in_it(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call("plan", str(suite), "--calibrate", "--max-joules", "1e-3", "--json", capsys=capsys)
    plan = json.loads(out)
    assert code == 2
    assert "--max-joules 0.001 cannot hold the plan of mine" in err
    assert "not even one prompt" in err
    assert plan["unpriced"] == 0
    assert 0 < plan["energy_j"]["low"] < plan["energy_j"]["value"] < plan["energy_j"]["high"]
    assert plan["duration_s"]["value"] > 0
    assert {cell["rests_on"] for cell in plan["cells"]} <= {"measured", "estimated"}
    assert "calibration took" in plan["notes"][0]
    assert set(json.loads(call("schema", capsys=capsys)[1])["plan"]["required"]) == set(plan)
    both = call("plan", str(suite), "--calibrate", "--from", "somewhere", capsys=capsys)
    assert (both[0], "either --from or --calibrate" in both[2]) == (2, True)
    nowhere = call("plan", str(suite), "--from", str(suite.parent / "nowhere"), capsys=capsys)
    assert (nowhere[0], "does not exist" in nowhere[2]) == (4, True)


def test_a_budget_leaves_a_run_that_can_be_looked_at_and_resumed(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    bad = call("run", str(suite), "--out", str(run), "--max-joules", "0", capsys=capsys)
    assert (bad[0], "--max-joules 0: a positive number" in bad[2], run.exists()) == (2, True, False)
    code, out, err = call("run", str(suite), "--out", str(run), "--max-joules", "1e-6", "-q", capsys=capsys)
    assert (code, out) == (130, "")
    for words in ("J are spent", "1 of 6 trials are kept", "--resume and a larger budget", f"perjoule score {run}"):
        assert words in err
    # the part can be scored and reported
    scored = call("score", str(run), "--metric", "lsnr", capsys=capsys)
    assert (scored[0], "is incomplete: 1 of 6 trials" in scored[2]) == (0, True)
    assert call("report", str(run), capsys=capsys)[0] == 0
    more = ("--resume", "--max-minutes", "60", "-q")
    assert call("run", str(run / "suite.toml"), "--out", str(run), *more, capsys=capsys)[0] == 0
    # and the whole tells the next plan its price
    plan = json.loads(call("plan", str(suite), "--from", str(run), "--json", capsys=capsys)[1])
    assert plan["unpriced"] == 0
    assert all("the cell's own windows" in cell["source"] for cell in plan["cells"])


def test_every_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ["plan", "run", "score", "frontier", "report", "list", "doctor", "measure", "schema", "explain"]
    for command in [*commands, "completion"]:
        code, out, _ = call(command, "--help", capsys=capsys)
        assert code == 0
        assert f"Example: perjoule {command}" in out


def test_heavy_libraries_stay_out_of_the_way() -> None:
    script = (
        "import sys, perjoule, perjoule.cli, perjoule.meters, perjoule.quality;"
        "heavy = {'torch', 'diffusers', 'transformers', 'pynvml', 'codecarbon', 'matplotlib', 'polars', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
class TestInstalledCommand:
    """One run end to end through the console script, stopped by Ctrl-C, resumed, scored, reported."""

    def perjoule(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False)

    def test_the_whole_line(self, suite: Path) -> None:
        folder = suite.parent
        whole = self.perjoule("run", "suite.toml", "--out", "whole", "--json", cwd=folder)
        assert whole.returncode == 0, whole.stderr
        found = json.loads(whole.stdout)
        assert [p["steps_mean"] for p in found["points"]] == [1, 3, 6]
        assert all(p["provenance"] in ("measured", "estimated") for p in found["points"])
        assert all(p["quality"]["value"] is not None for p in found["points"])
        assert "trials" in whole.stderr
        for name in ("report.html", "report.md", "result.json", "points.parquet", "scores.parquet", "power.parquet"):
            assert (folder / "whole" / name).is_file(), name

        first = self.interrupted(folder)
        assert 0 < first < 6
        resumed = self.perjoule("run", "suite.toml", "--out", "cut", "--resume", cwd=folder)
        assert resumed.returncode == 0, resumed.stderr
        assert hashes(folder / "cut") == hashes(folder / "whole")
        again = self.perjoule("run", "cut/suite.toml", "--out", "cut", "--resume", "--quiet", cwd=folder)
        assert again.returncode == 0, again.stderr
        assert again.stderr == ""

        assert self.perjoule("score", "whole", "--metric", "lsnr", cwd=folder).returncode == 0
        table = self.perjoule("frontier", "whole", "--metric", "cvvdp", "--format", "md", cwd=folder)
        assert table.stdout.startswith("| cell | steps |")
        if any(p["provenance"] == "estimated" for p in found["points"]):
            assert "ESTIMATED" in table.stdout
        report = self.perjoule("report", "whole", "--out", "there.html", cwd=folder)
        assert report.returncode == 0, report.stderr
        assert "<html" in (folder / "there.html").read_text()

    def interrupted(self, folder: Path) -> int:
        """Start a run, press Ctrl-C after the first trial; -> how many trials are kept."""
        process = subprocess.Popen(
            [*COMMAND, "run", "suite.toml", "--out", "cut"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            # what a shell starts in the background ignores it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        trials = folder / "cut" / "trials.jsonl"
        deadline = time.monotonic() + 120
        while not (trials.exists() and trials.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "--resume" in stderr
        assert "Traceback" not in stderr
        return len(trials.read_text().splitlines())


COMMAND = [str(Path(sys.executable).with_name("perjoule"))]


def hashes(run: Path) -> dict[str, str]:
    from perjoule.runs.directory import load_run

    images = load_run(run).images
    return dict(zip(images["image_id"], images["sha256"], strict=True))


def test_the_command_is_installed() -> None:
    assert os.access(COMMAND[0], os.X_OK)
