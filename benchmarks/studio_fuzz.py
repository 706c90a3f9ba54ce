"""Sends the studio what nobody should, for a minute: broken commands, broken bodies, strangers' requests.

    python benchmarks/studio_fuzz.py --seconds 60

What must hold: only the socket that sent it is closed, another one hears on, the process that computes is the same,
the server has not grown, and the project opens as it was left by the commands that were valid by chance.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from onemask.studio.project import MethodChoice, Project
from onemask.video.sample import sample_clip

TOKEN = "a-token-for-the-fuzz"
PIXELS = 854 * 480
VALID: list[dict[str, Any]] = [
    {"type": "edit", "frame": 2, "runs": [0, 1000, 1, 500, 0, PIXELS - 1500], "what": "Brush"},
    {"type": "look", "frames": [0, 1, 2]},
    {"type": "shape", "frame": 2, "object": 1, "do": "grow"},
    {"type": "change-object", "object": 1, "name": "Car", "colour": "#ff0000", "visible": True},
    {"type": "add-object", "name": "Ball"},
    {"type": "remove-object", "object": 2},
    {"type": "first", "request": 1, "frame": 0, "box": [10, 10, 50, 50], "clicks": [], "scribbles": []},
    {"type": "keep", "frame": 2},
    {"type": "undo"},
    {"type": "redo"},
    {"type": "stop"},
]
PATHS = [
    ("POST", "/api/commands"),
    ("POST", "/api/masks/3"),
    ("POST", "/api/videos?name=x.mp4"),
    ("POST", "/api/exports/..%2f..%2fproject.json"),
    ("POST", "/api/projects/%2e%2e"),
    ("GET", "/api/frames/%2e%2e%2fproject.json"),
    ("GET", "/api/masks/-1.png"),
    ("PUT", "/api/state"),
]


def broken(rng: random.Random) -> str:
    """A command with some of its characters replaced, or something in its place."""
    text = list(json.dumps(rng.choice(VALID)))
    for _ in range(rng.choice([0, 1, 1, 2, 5, 20])):
        at = rng.randrange(len(text))
        text[at] = rng.choice(["", "-", "9" * 30, '"', "{", "}", "null", "\u0000", "é", "1e9", "[" * 1000, "NaN"])
    return "".join(text)


def send_broken(address: str, rng: random.Random, counts: Counter[str]) -> None:
    """Open a socket, and send to it until it is closed: twenty messages at most, then one that surely closes it."""
    with connect(f"ws://{address}/api/socket", additional_headers={"authorization": f"Bearer {TOKEN}"}) as socket:
        counts["sockets"] += 1
        try:
            for _ in range(20):
                message = broken(rng)
                socket.send(message.encode() if rng.random() < 0.1 else message)
                counts["messages"] += 1
            socket.send("no command")
            while True:
                socket.recv(timeout=60)  # TimeoutError: it stayed open
        except ConnectionClosed as closed:
            code = None if closed.rcvd is None else closed.rcvd.code
            assert code in (1003, 1008), f"closed with {code}"


def ask_broken(address: str, rng: random.Random, counts: Counter[str]) -> None:
    """A request with a body of noise, with the token or without."""
    method, path = rng.choice(PATHS)
    body = rng.randbytes(rng.choice([0, 1, 100, 100_000])) if rng.random() < 0.5 else broken(rng).encode()
    headers = {"authorization": f"Bearer {TOKEN}"} if rng.random() < 0.8 else {}
    headers |= {"origin": "http://evil.example"} if rng.random() < 0.1 else {}
    headers |= {"content-type": "application/json"} if rng.random() < 0.8 else {}
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, body, headers)
    status = connection.getresponse().status
    connection.close()
    counts["requests"] += 1
    assert status < 500, f"{method} {path} was answered with {status}"
    counts[f"answers {status // 100}xx"] += 1


class Bystander(threading.Thread):
    """Reads what a socket that does nothing is told."""

    def __init__(self, socket: ClientConnection):
        super().__init__(daemon=True)
        self.socket, self.answered, self.events = socket, threading.Event(), 0

    def run(self) -> None:
        """Read until the socket closes."""
        for text in self.socket:
            self.events += 1
            event = json.loads(text)
            if event["type"] == "mask" and event["frame"] == 7:
                self.answered.set()

    def hears(self) -> bool:
        """Whether it still gets an answer."""
        self.answered.clear()
        self.socket.send('{"type": "look", "frames": [7]}')
        return self.answered.wait(timeout=60)


def memory(process: int) -> float:
    """Resident MiB."""
    return int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Start a studio, send, and check what must hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        command = [sys.executable, "-m", "onemask.cli", "studio", str(sample_clip().path), "--project", str(project)]
        command += ["--token", TOKEN, "--no-browser", "--method", "ttvos-lite"]
        environment = os.environ | {"ONEMASK_HOME": f"{folder}/home"}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stdout is not None
            opened = next(line.split()[1] for line in server.stdout if line.startswith("open "))
            address = opened.removeprefix("http://").partition("/")[0]
            headers = {"authorization": f"Bearer {TOKEN}"}
            with connect(f"ws://{address}/api/socket", additional_headers=headers, max_size=None) as socket:
                bystander = Bystander(socket)
                bystander.start()
                for _ in range(20):  # until memory has settled
                    send_broken(address, rng, counts)
                before, end = memory(server.pid), time.monotonic() + options.seconds
                while time.monotonic() < end:
                    (send_broken if rng.random() < 0.5 else ask_broken)(address, rng, counts)
                assert bystander.hears()
                assert server.poll() is None
                grown = memory(server.pid) - before
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("GET", "/api/state", headers=headers)
            state = json.load(connection.getresponse())
        finally:
            server.terminate()
            server.wait()
        again = Project.open(project, None, MethodChoice("ttvos-lite"))
        assert sorted(again.keys) == state["keys"]
        assert [thing.name for thing in again.objects] == [thing["name"] for thing in state["objects"]]
        assert {path.name for path in Path(folder).iterdir()} == {"project", "home"}
    for what, count in sorted(counts.items()):
        print(f"{what:16} {count:7}")
    print(f"another socket heard {bystander.events} events, and hears on")
    print(f"the server grew by {grown:.1f} MiB; the project is as the server said")


if __name__ == "__main__":
    main()
