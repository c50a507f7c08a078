from __future__ import annotations

from pathlib import Path

import pytest

from perjoule import registry
from perjoule.errors import UnknownNameError, UsageError
from perjoule.weights.models import relative_to, resolve_model


class Point:
    def __init__(self, folder):
        self.folder = folder

    def load(self):
        return lambda: self.folder


def test_builtins_come_from_entry_points(monkeypatch, tmp_path):
    monkeypatch.setattr(
        registry, "registered", lambda group: {"clip-tiny": Point(tmp_path)} if group == "models" else {}
    )
    assert resolve_model("builtin:clip-tiny", "here") == str(tmp_path)
    with pytest.raises(UnknownNameError, match=r"^here: unknown builtin model 'clip-tny': did you mean 'clip-tiny'"):
        resolve_model("builtin:clip-tny", "here")


def test_a_folder_stays_and_a_hub_id_stays(tmp_path):
    assert resolve_model(str(tmp_path), "here") == str(tmp_path)
    assert resolve_model("openai/clip-vit-base-patch32", "here") == "openai/clip-vit-base-patch32"


@pytest.mark.parametrize(
    "name", ["./gone", "/gone/away", "~/gone-away", "~nobody-of-this-name/model", "./" + "a" * 300, ""]
)
def test_a_path_that_is_not_there_is_not_sent_to_the_hub(name):
    with pytest.raises(UsageError, match=r"here: model .*: no such folder"):
        resolve_model(name, "here")


def test_each_place_that_was_searched_is_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    for folder in (tmp_path, Path()):
        with relative_to(folder), pytest.raises(UsageError) as caught:
            resolve_model("./gone", "here")
        assert str(caught.value).count(str(tmp_path)) == 1
    with relative_to(tmp_path / "suites"), pytest.raises(UsageError, match=f"in {tmp_path}/suites or in {tmp_path};"):
        resolve_model("./gone", "here")
    with relative_to(tmp_path), pytest.raises(UsageError, match="no such folder; give"):
        resolve_model("/gone/away", "here")
