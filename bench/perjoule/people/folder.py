"""Reads the folder of a study."""

from __future__ import annotations

import hashlib
from pathlib import Path

from perjoule.errors import UsageError
from perjoule.people.records import STUDY_FILE, Study, parsed_study


def read_study(folder: Path) -> Study:
    """Return the study of a folder whose pictures are those of `perjoule study new`.

    Raises:
        UsageError: If there is no study, or if it or a picture was changed.
    """
    file = folder / STUDY_FILE
    try:
        study = parsed_study(file.read_bytes(), str(file))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder}: no {STUDY_FILE}: give a folder made by `perjoule study new`") from None
    for picture in study.pictures:
        path = folder / picture.file
        if not path.is_file():
            raise UsageError(f"{path}: missing: restore the picture, or make a new study")
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != picture.sha256:
            raise UsageError(f"{path}: not the picture of the study: restore it, or make a new study")
    return study
