from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from perjoule.errors import UsageError
from perjoule.weights.downloads import cache_folder, cached_file, fetch_file, is_offline


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(url: str, sha256: str | None = None) -> Path:
    return fetch_file(url, sha256=sha256, where="s.toml: prompts.source")


def leftovers() -> list[Path]:
    return [p for p in cache_folder().rglob("*") if p.is_file()]


def test_a_file_is_fetched_once_and_then_needs_no_network(web, monkeypatch):
    web.pages["/a.txt"] = b"a cat\n"
    first = fetch(f"{web.url}/a.txt", digest(b"a cat\n"))
    assert first.read_bytes() == b"a cat\n"
    assert first == cached_file(f"{web.url}/a.txt")
    assert first.name == "a.txt"
    monkeypatch.setenv("PERJOULE_OFFLINE", "1")
    assert fetch(f"{web.url}/a.txt", digest(b"a cat\n")) == first
    assert web.asked == ["/a.txt"]


def test_two_addresses_of_one_name_do_not_share_a_file(web):
    web.pages |= {"/1/a.txt": b"1", "/2/a.txt": b"2"}
    assert fetch(f"{web.url}/1/a.txt").read_bytes() == b"1"
    assert fetch(f"{web.url}/2/a.txt").read_bytes() == b"2"


def test_a_wrong_hash_names_both_digests_and_the_file_to_delete(web):
    web.pages["/a.txt"] = b"a dog\n"
    wanted = digest(b"a cat\n")
    for _ in range(2):  # the second time the cached file is at fault
        with pytest.raises(UsageError) as caught:
            fetch(f"{web.url}/a.txt", wanted)
        for part in (wanted, digest(b"a dog\n"), str(cached_file(f"{web.url}/a.txt")), "prompts.source"):
            assert part in str(caught.value)


def test_faults_of_the_server_are_tried_again(web):
    web.pages["/a.txt"] = lambda number: (503, {}, b"") if number < 3 else (200, {}, b"a cat\n")
    assert fetch(f"{web.url}/a.txt").read_bytes() == b"a cat\n"
    assert len(web.asked) == 3


def test_a_body_that_breaks_off_is_fetched_again_and_never_kept(web):
    web.pages["/a.txt"] = lambda number: (
        (200, {"Content-Length": "99", "Connection": "close"}, b"a c") if number < 2 else (200, {}, b"a cat\n")
    )
    assert fetch(f"{web.url}/a.txt").read_bytes() == b"a cat\n"
    web.pages["/b.txt"] = lambda number: (200, {"Content-Length": "99", "Connection": "close"}, b"a c")
    with pytest.raises(UsageError, match="broke off 4 times"):
        fetch(f"{web.url}/b.txt")
    assert leftovers() == [cached_file(f"{web.url}/a.txt")]


@pytest.mark.parametrize(("path", "message"), [("/none.txt", "404"), ("", "404")])
def test_what_is_not_there_is_said(web, path, message):
    with pytest.raises(UsageError, match=message):
        fetch(web.url + path)
    assert leftovers() == []


def test_no_server_and_no_address(web):
    with pytest.raises(UsageError, match="check the network"):
        fetch("http://127.0.0.1:1/a.txt")
    with pytest.raises(UsageError, match="could not be downloaded"):
        fetch("http://")


def test_offline_without_the_file_says_where_to_put_it(web, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="network is off") as caught:
        fetch(f"{web.url}/a.txt")
    assert str(cached_file(f"{web.url}/a.txt")) in str(caught.value)
    assert web.asked == []


def test_a_cache_that_cannot_be_written_is_named(web, monkeypatch, tmp_path):
    web.pages["/a.txt"] = b"a cat\n"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="Not a directory"):
        fetch(f"{web.url}/a.txt")


def test_the_environment_moves_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("PERJOULE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "perjoule"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "perjoule"


@pytest.mark.parametrize(("value", "off"), [("1", True), ("true", True), ("0", False), ("", False), ("No", False)])
def test_offline_is_what_the_hub_takes_for_it(monkeypatch, value, off):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("PERJOULE_OFFLINE", value)
    assert is_offline() is off


def test_an_address_that_never_ends_does_not_fill_the_disk(web, monkeypatch):
    monkeypatch.setattr("perjoule.weights.downloads._MOST_BYTES", 100)
    web.pages["/a.txt"] = b"a" * 101
    with pytest.raises(UsageError, match=r"a\.txt has more than 0 GiB: not a file that perjoule uses"):
        fetch(f"{web.url}/a.txt")
    assert leftovers() == []
