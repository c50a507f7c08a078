from __future__ import annotations

import hashlib
import os

import pytest

from perjoule.errors import UsageError
from perjoule.weights.digests import digest_files, digest_folder


def test_it_is_what_sha256sum_of_sha256sum_says(tmp_path):
    (tmp_path / "b.bin").write_bytes(b"two")
    (tmp_path / "a.bin").write_bytes(b"one")
    listing = "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in (("a.bin", b"one"), ("b.bin", b"two")))
    wanted = hashlib.sha256(listing.encode()).hexdigest()
    assert digest_folder(tmp_path, ("*.bin",)) == wanted
    assert digest_files([tmp_path / "b.bin", tmp_path / "a.bin"]) == wanted
    assert digest_folder(tmp_path, ("*.bin", "a.*")) == wanted


def test_subfolders_tell_equal_names_apart(tmp_path):
    for name, content in (("unet", b"u"), ("vae", b"v")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    first = digest_folder(tmp_path, ("**/*.safetensors",))
    (tmp_path / "unet/model.safetensors").write_bytes(b"v")
    (tmp_path / "vae/model.safetensors").write_bytes(b"u")
    assert digest_folder(tmp_path, ("**/*.safetensors",)) != first


def test_a_file_written_anew_is_read_anew(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    first = digest_files([file])
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert digest_files([file]) != first


def test_a_folder_without_weights_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no weights"):
        digest_folder(tmp_path, ("*.safetensors",))
