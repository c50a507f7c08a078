"""The guard of conftest.py notices what a test leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.perjoule.pytest_energy.repository import Repository, run


@pytest.mark.slow
def test_a_test_that_leaves_traces_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("KEPT", "1")
    theirs = Repository(tmp_path)
    theirs.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    theirs.makepyfile(
        test_leaks="""
        import decimal, logging, os, signal, sys
        import pytest

        def leave_the_folder(): os.chdir("/")
        def import_again(): del sys.modules["decimal"]; import decimal
        def forget_a_module(): del sys.modules["decimal"]
        def change_a_variable(): os.environ["KEPT"] = "2"
        def drop_a_variable(): del os.environ["KEPT"]
        def go_offline(): os.environ["PERJOULE_OFFLINE"] = "1"
        def extend_the_path(): sys.path.append("/")
        def silence_all(): logging.disable()
        def ignore_ctrl_c(): signal.signal(signal.SIGINT, lambda *_: None)

        LEAKS = [leave_the_folder, import_again, forget_a_module, change_a_variable, drop_a_variable, go_offline,
                 extend_the_path, silence_all, ignore_ctrl_c]

        @pytest.fixture(autouse=True, scope="session")
        def after_all():
            before = dict(os.environ), list(sys.path), os.getcwd(), signal.getsignal(signal.SIGINT)
            yield
            signal.signal(signal.SIGINT, before[3])

        @pytest.mark.parametrize("leak", LEAKS)
        def test_leak(leak):
            leak()

        def test_clean(monkeypatch, tmp_path):
            monkeypatch.setenv("PERJOULE_OFFLINE", "0")
            monkeypatch.chdir(tmp_path)
            monkeypatch.syspath_prepend(tmp_path)
            monkeypatch.setitem(sys.modules, "decimal", None)
            os.environ["SOME_LIBRARY"] = "set when it is imported"
        """
    )
    result = run(theirs, "-q")
    result.assert_outcomes(passed=10, errors=9)
    text = result.stdout.str()
    for words in (
        "left behind: the working directory: ",
        "left behind: 1 modules were lost or replaced: decimal",
        "left behind: environment variable KEPT: '1' became '2'",
        "left behind: environment variable KEPT: '2' became None",
        "left behind: environment variable PERJOULE_OFFLINE is new: '1'",
        "left behind: sys.path: ",
        "left behind: logging.disable: 0 became 50",
        "left behind: signal SIGINT: ",
    ):
        assert words in text
