"""How long an answer takes when many people take part at once, and what a kill -9 leaves.

    python -m tests.benchmarks.people.load [--observers 50] [--pairs 40] [--pause 0.9] [--active] [--folder DIR]

Each observer sends one answer after the other to a server in a process of its own, with a pause between them: 0.9 s are
the blank and the shortest time in which the page takes an answer, 0 is as fast as the server can. After a third of the
answers the server is killed with SIGKILL and started again; what was not acknowledged is sent again, as the page does.
Prints one line of JSON; answers that were sent before the new server was ready are not in the percentiles. The folder
decides which disk is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.people.records import DATABASE_FILE, Study
from tests.support.studies import Server, answer, answer_file, make_study, serving


class Connection:
    """A connection that stays open, as a browser's does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, content: Any) -> tuple[int, Any]:
        """Return the status and the JSON of a reply; raises OSError or EOFError if there is none."""
        body = json.dumps(content).encode()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(
                f"POST /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].split()[0])
            return int(head.split()[1]), json.loads(await reader.readexactly(length))
        except (OSError, EOFError):
            self._streams = None
            raise


@dataclass
class Crowd:
    """What the observers share: seconds per answer, and whether the server is down."""

    times: list[float] = field(default_factory=list)
    down: bool = False


async def take_part(study: Study, port: int, number: int, pause_s: float, active: bool, crowd: Crowd) -> int:
    """Answer all trials of a session. -> answers that had to be sent again"""
    connection, observer, again = Connection(port), f"{number:032x}", 0
    await asyncio.sleep(pause_s * number / 50)
    for place, trial_id in enumerate(study.sessions[number]):
        content = answer_file(study, [answer(study, trial_id, observer=observer)])
        while True:
            began, up = time.perf_counter(), not crowd.down
            try:
                status, reply = await connection.post("api/answers", content)
                if up:
                    crowd.times.append(time.perf_counter() - began)
                assert (status, reply["stored"]) == (200, [trial_id])
                if active and place % 3 == 2:
                    await connection.post("api/next", {"observer": observer, "soon": []})
                break
            except (OSError, EOFError):
                again += 1
                await asyncio.sleep(0.5)
        await asyncio.sleep(pause_s)
    return again


async def gather(study: Study, server: Server, arguments: argparse.Namespace) -> tuple[list[float], int, bool]:
    """Let everybody take part, and kill the server in the middle. -> (seconds, sent again, intact after the kill)"""
    crowd = Crowd()
    people = [
        asyncio.create_task(take_part(study, server.port, number, arguments.pause, arguments.active, crowd))
        for number in range(arguments.observers)
    ]
    third = sum(map(len, study.sessions)) // 3
    while len(crowd.times) < third:
        await asyncio.sleep(0.02)
    crowd.down = True
    server.kill()
    acknowledged = len(crowd.times)
    with closing(sqlite3.connect(server.folder / DATABASE_FILE)) as database:
        intact = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (stored,) = database.execute("SELECT count(*) FROM answers").fetchone()
    await asyncio.to_thread(server.start)
    crowd.down = False
    return crowd.times, sum(await asyncio.gather(*people)), intact and stored >= acknowledged


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observers", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.9)
    parser.add_argument("--active", action="store_true")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary) / "study"
        study = make_study(folder, main=arguments.pairs, observers=arguments.observers)
        with serving(folder, active=arguments.active) as server:
            began = time.perf_counter()
            times, again, intact = asyncio.run(gather(study, server, arguments))
            took = time.perf_counter() - began
        with closing(sqlite3.connect(folder / DATABASE_FILE)) as database:
            stored = set(database.execute("SELECT observer, trial_id FROM answers"))
    expected = {(f"{n:032x}", trial) for n in range(arguments.observers) for trial in study.sessions[n]}
    p50, p99, most = (1e3 * np.quantile(times, [0.5, 0.99, 1])).round(1).tolist()
    print(
        json.dumps(
            {
                "observers": arguments.observers, "pause_s": arguments.pause, "active": arguments.active,
                "answers": len(expected), "answers_per_s": round(len(expected) / took, 1), "p50_ms": p50, "p99_ms": p99,
                "max_ms": most, "sent_again": again, "lost": len(expected - stored), "too_many": len(stored - expected),
                "intact_after_kill": intact, "load_average": round(os.getloadavg()[0], 1),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
