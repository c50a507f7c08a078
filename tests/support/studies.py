"""Folders of small studies with drawn pictures, and a server for them in a process of its own."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image, ImageDraw

from perjoule.files import write_json
from perjoule.people import design
from perjoule.people.folder import read_answers, read_study
from perjoule.people.page import page_trial, write_page
from perjoule.people.records import (
    NOISE,
    STUDY_FILE,
    Answer,
    Display,
    Picture,
    Planned,
    Screening,
    Study,
    StudyIndex,
    StudyPrompt,
    as_object,
    with_digest,
)

QUICK = {"blank_ms": 20, "guard_ms": 10, "quiet_ms": 5, "feedback_ms": 30, "retry_ms": 200}
OBSERVER = "0123456789abcdef" * 2
ARMS = ("sd-01", "sd-04", "sd-16")
COLOURS = ("red", "blue", "green", "orange", "purple", "black")
DISCS = tuple(f"a large {colour} disc" for colour in COLOURS) * 3


def make_study(
    folder: Path,
    *,
    main: int = 40,
    observers: int = 3,
    size: tuple[int, int] = (64, 64),
    prompts: tuple[str, ...] = DISCS,
    arms: tuple[str, ...] = ARMS,
    times_ms: dict[str, int] | None = None,
    **more: Any,
) -> Study:
    """Write the folder of a study; `more` are further fields of `Study`."""
    chance = np.random.default_rng(0)
    pictures: list[Picture] = []

    def draw(arm: str | None, prompt: int, noise: float, name: str) -> Picture:
        image = Image.new("RGB", size, "white")
        edge = min(size) // 4
        ImageDraw.Draw(image).ellipse((edge, edge, size[0] - edge, size[1] - edge), COLOURS[prompt % len(COLOURS)])
        pixels = np.clip(np.asarray(image) + chance.normal(0, noise, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        digest = hashlib.sha256(stream.getvalue()).hexdigest()
        file = f"pictures/{digest[:32]}.png"
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(stream.getvalue())
        pictures.append(
            Picture(
                picture_id=f"p{len(pictures)}", arm=arm, prompt_id=name, seed="1", file=file, sha256=digest,
                pixels_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(), width_px=size[0], height_px=size[1],
            )
        )  # fmt: skip
        return pictures[-1]

    names = [f"prompt-{number}" for number in range(len(prompts))]
    for number, name in enumerate(names):
        draw(None, number, 1, name)
    shown = [[draw(arm, i, 80 / 2**j, name) for j, arm in enumerate(arms)] for i, name in enumerate(names)]
    foils = [draw(NOISE, 0, 400 + number, names[0]) for number in range(2)]
    fields: dict[str, Any] = {
        "schema": 1, "study_id": "0" * 64, "title": "Pictures of discs", "contact": "Ada Example, ada@example.org",
        "question": "preference", "ties": True, "arms": arms,
        "prompts": tuple(StudyPrompt(prompt_id=n, text=text) for n, text in zip(names, prompts, strict=True)),
        "pictures": tuple(pictures), "trials": (), "sessions": (), "seed": 0, "screening": Screening(),
        "planned": Planned(observers=observers, main_trials=main, answers=observers * main),
        "display": Display(width_mm=40.0, scaling="pixelated"),
    }  # fmt: skip
    study = Study(**fields | more)
    stock = design.Stock(shown=shown, noise=foils, best=len(arms) - 1)
    trials, sessions = design.sessions(study, stock, observers=observers, main=main, seed=0)
    study = with_digest(replace(study, trials=trials, sessions=sessions))
    write_json(folder / STUDY_FILE, as_object(study))
    write_page(study, folder, times_ms)
    return study


def answer(study: Study, trial_id: str, choice: str = "left", observer: str = OBSERVER) -> dict[str, Any]:
    """An answer as the page sends it."""
    trial = page_trial(StudyIndex(study).trial_of(trial_id))
    return {
        "study_id": study.study_id, "observer": observer, "trial_id": trial_id, "left": trial["left_arm"],
        "right": trial["right_arm"], "choice": choice, "shown_at_ms": 1.0, "response_ms": 900.5,
        "provenance": "simulated", "viewport": None,
    }  # fmt: skip


def answer_file(study: Study, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """A file of answers, as the page exports and sends it."""
    return {"schema": 1, "study_id": study.study_id, "answers": answers}


@dataclass
class Server:
    """A server in a process of its own, which can be killed and started again at the same address."""

    folder: Path
    port: int
    token: str | None = None
    active: bool = False
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/{f'{self.token}/' if self.token else ''}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        arguments = f"{str(self.folder)!r}, {self.port}, {self.token!r}, {self.active}"
        code = f"from tests.support.studies import run_server; run_server({arguments})"
        self.process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urlopen(self.url, timeout=5).close()
                return
            except (URLError, ConnectionError):
                time.sleep(0.05)
        raise RuntimeError(f"no server: {self.stop()}")

    def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def stop(self) -> str:
        """End the process, and return what it wrote to stderr."""
        assert self.process is not None
        self.process.terminate()
        return self.process.communicate(timeout=30)[1]

    def post(self, path: str, content: Any, **headers: str) -> tuple[int, Any]:
        """Return the status and the reply of a request; `content` is sent as JSON unless it is bytes."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.get(path, body, **{"Content-Type": "application/json"} | headers)

    def get(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the reply; JSON is parsed."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urlopen(Request(self.url + path, body, headers), timeout=30) as reply:
                status, kind, content = reply.status, reply.headers.get_content_type(), reply.read()
        except HTTPError as error:
            status, kind, content = error.code, error.headers.get_content_type(), error.read()
        return status, json.loads(content) if kind == "application/json" else content


@contextmanager
def serving(folder: Path, token: str | None = None, active: bool = False) -> Iterator[Server]:
    """Serve the study of a folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(folder, port, token, active)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def run_server(folder: str, port: int, token: str | None, active: bool) -> None:
    """Serve in this process, with the times of the tests."""
    from perjoule.people import server
    from perjoule.people.records import DATABASE_FILE
    from perjoule.people.store import AnswerStore

    study = read_study(Path(folder))
    with (
        server.bind("127.0.0.1", port, token) as listening,
        AnswerStore(Path(folder) / DATABASE_FILE, study.study_id) as store,
    ):
        app = server.make_app(
            study, Path(folder), store, token=token, active=active, provenance="simulated", times_ms=QUICK
        )
        server.serve(app, listening)


def collected(folder: Path) -> tuple[Answer, ...]:
    """The answers in the folder of a study, in the order in which each observer gave them."""
    answers = read_answers(folder, read_study(folder))
    return tuple(sorted(answers, key=lambda answer: (answer.observer, answer.shown_at_ms)))
