"""What killed processes and full disks cost: nothing, if a resumed run ends with the very same files.

Runs of all methods with weights, and an evaluation, are killed at random points, and work on disks too small for them.
Each is resumed and compared, byte for byte, with one that nothing interrupted; files under their final names are read
after every fault. Files of an interrupted run are removed, cut or damaged: --resume restores the results, or refuses in
one line. Writes a table in Markdown.

    python benchmarks/faults.py [METHOD ...] [--kills 100] [--minutes 8] [--seed 0]

Disks of a given size are mounted in a namespace of their own: Linux, with user namespaces or as root.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch

import onemask.running
from onemask.cli import main
from onemask.video.masks import read_label_map, write_mask
from onemask.weights.store import installed

FRAMES, HEIGHT, WIDTH = 6, 96, 128
DISKS = (16, 32, 48, 64, 96, 192, 384, 1024)  # KiB
KIB = 1024
QUICKER = {"frtm-lite": ["--set", "memory=8", "--set", "first_samples=2"]}
CHECKPOINT_SECONDS = 0.1  # instead of half a minute: as many saved sessions as in a long run
ENOUGH_KIB = 1 << 18
NEW_NAMESPACES = 0x10000000 | 0x00020000  # CLONE_NEWUSER | CLONE_NEWNS
REMOUNT = 32


@dataclass
class Tally:
    """What was tried of a kind, and what did not hold."""

    tried: int = 0
    finished: int = 0  # before the fault came
    failures: list[str] = field(default_factory=list)

    def note(self, problem: str | None) -> None:
        """Count one; problem: what did not hold."""
        self.tried += 1
        if problem:
            self.failures.append(problem)


# What is run ----------------------------------------------------------------------------------------------------------


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Pictures (T, H, W, 3) and label maps (T, H, W) of a disc that moves."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    maps = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        maps[t][(y - 50) ** 2 + (x - 40 - 5 * t) ** 2 < 22**2] = 1
    ground = (90 + 40 * np.sin(x / 5) + 30 * np.cos(y / 7)).astype(np.uint8)
    pictures = np.repeat(np.repeat(ground[None, ..., None], FRAMES, 0), 3, 3)
    pictures[maps == 1] = (230, 60, 40)
    return pictures, maps


def write_inputs(folder: Path) -> None:
    """A video, the mask of its first frame, and a dataset in DAVIS layout."""
    pictures, maps = scene()
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    write_mask(folder / "mask.png", maps[0])
    for index, (picture, labels) in enumerate(zip(pictures, maps, strict=True)):
        frame = folder / "davis" / "JPEGImages" / "480p" / "disc" / f"{index:05d}.png"
        frame.parent.mkdir(parents=True, exist_ok=True)
        av.VideoFrame.from_ndarray(picture, format="rgb24").to_image().save(frame)
        write_mask(folder / "davis" / "Annotations" / "480p" / "disc" / frame.name, labels)
    (folder / "davis" / "ImageSets" / "2017").mkdir(parents=True)
    (folder / "davis" / "ImageSets" / "2017" / "val.txt").write_text("disc\n")


def command(inputs: Path, method: str, what: str) -> list[str]:
    """A run or an evaluation, without where to write it."""
    how = ["--method", method, "--size", "64", "--device", "cpu", *QUICKER.get(method, [])]
    if what == "run":
        return ["run", str(inputs / "clip.mp4"), "--mask", str(inputs / "mask.png"), *how]
    return ["evaluate", str(inputs / "davis"), "--protocol", "davis2017", *how]


# In a process of its own ----------------------------------------------------------------------------------------------


def started(act: Callable[[], int], messages: Path) -> int:
    """Begin a process that writes what it has to say into a file; its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        file = os.open(messages, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = act()
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code of a process; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def results(out: Path) -> dict[str, bytes]:
    """Masks and scores: what is the same in each run."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix in (".png", ".csv", ".mp4") and ".onemask" not in path.parts
    }


def unreadable(out: Path) -> str | None:
    """A file that stands half-written under its final name."""
    for path in out.rglob("*"):
        if not path.is_file() or ".partial." in path.name or ".onemask" in path.parts:
            continue
        try:
            if path.suffix == ".png" and path.parent.name.startswith("masks"):
                read_label_map(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".mp4":
                with av.open(str(path)) as container:
                    assert sum(1 for _ in container.decode(video=0)) == FRAMES
        except Exception as error:
            return f"{path.name} is not whole: {error}"
    return None


def resumed(arguments: list[str], out: Path, whole: dict[str, bytes], messages: Path) -> str | None:
    """Resume and compare; what did not hold."""
    code = ended(started(lambda: main([*arguments, "--out", str(out), "--resume"]), messages))
    if code != 0:
        return f"--resume ended with {code}: {messages.read_text()[-300:]}"
    if results(out) != whole:
        differing = [name for name, data in whole.items() if results(out).get(name) != data]
        return f"after --resume {len(differing)} of {len(whole)} files differ, {differing[:3]}"
    left = [path.name for path in out.rglob(".*") if ".partial" in path.name]
    return f"{left[0]} is left" if left else None


# Faults ---------------------------------------------------------------------------------------------------------------


def killed(arguments: list[str], out: Path, whole: dict[str, bytes], delay: float, tally: Tally) -> None:
    """Kill a process after a time, then once more while it resumes in every other case."""
    messages = out.with_suffix(".txt")
    pid = started(lambda: main([*arguments, "--out", str(out)]), messages)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    tally.finished += ended(pid) == 0
    tally.note(unreadable(out) or resumed(arguments, out, whole, messages))


def on_a_small_disk(arguments: list[str], out: Path, whole: dict[str, bytes], size: int, tally: Tally) -> None:
    """Work on a disk of so many KiB, then with room on the same disk."""
    out.mkdir()
    messages, told = out.with_suffix(".txt"), out.with_suffix(".told")

    def act() -> int:
        mounted(out, size)
        place = out / "out"
        with told.open("w") as file, contextlib.redirect_stderr(file):
            code = main([*arguments, "--out", str(place)])
        said = told.read_text()
        if code == 0:
            return 1
        problem = None
        if (
            code != 2
            or "No space left" not in said
            or "Traceback" in said
            or not said.rstrip().rpartition("\n")[2].startswith("onemask: ")
        ):
            problem = f"ended with {code}: {said[-300:]}"
        problem = problem or (unreadable(place) if place.exists() else None)
        mounted(out, ENOUGH_KIB, again=True)
        problem = problem or resumed(arguments, place, whole, messages.with_suffix(".resumed"))
        print(problem or "")
        return 3 if problem else 0

    code = ended(started(act, messages))
    tally.finished += code == 1
    tally.note(None if code in (0, 1) else f"{size} KiB: {messages.read_text()[-400:].strip()}")


def mounted(folder: Path, size: int, *, again: bool = False) -> None:
    """Mount a disk in memory, seen by this process and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not again:
        user, group = os.getuid(), os.getgid()
        if libc.unshare(NEW_NAMESPACES) != 0:
            raise OSError(ctypes.get_errno(), "no namespace of its own; are user namespaces allowed?")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={size}k".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", REMOUNT if again else 0, options) != 0:
        raise OSError(ctypes.get_errno(), f"{folder} could not be mounted")


def harmed(arguments: list[str], out: Path, whole: dict[str, bytes], tally: Tally, rng: random.Random) -> None:
    """Remove, cut or fill with noise a file of what is kept to resume; --resume restores the results, or refuses."""
    messages = out.with_suffix(".txt")
    pid = started(lambda: main([*arguments, "--out", str(out)]), messages)
    while not list(out.glob(".onemask/*.safetensors")) and os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    kept = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "lock"]
    path, how = rng.choice(kept), rng.choice(("removed", "cut", "noise", "bits"))
    data = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "noise":
        path.write_bytes(rng.randbytes(len(data)))
    elif data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    problem = resumed(arguments, out, whole, messages)
    said = messages.read_text()
    if problem and "onemask: " in said and "Traceback" not in said and "ended with 2" in problem:
        tally.finished += 1  # here: refused in one line
        problem = None
    tally.note(problem and f"{path.relative_to(out)} {how}: {problem}")


# All of it ------------------------------------------------------------------------------------------------------------


def measured(options: argparse.Namespace, folder: Path) -> dict[tuple[str, str], Tally]:
    """Everything that is tried, by what it was and the method."""
    write_inputs(folder)
    rng, methods = random.Random(options.seed), options.methods or [*installed()]
    methods = [name for name in methods if name != "maskrcnn-lite"]  # proposes objects to another
    works = [*(("run", method) for method in methods), ("evaluate", methods[-1])]
    whole, seconds = {}, {}
    for what, method in works:
        out = folder / f"{what}-{method}"
        began = time.perf_counter()
        arguments = [*command(folder, method, what), "--out", str(out)]
        if ended(started(lambda arguments=arguments: main(arguments), out.with_suffix(".txt"))) != 0:
            sys.exit(out.with_suffix(".txt").read_text())
        whole[what, method], seconds[what, method] = results(out), time.perf_counter() - began
    tallies: dict[tuple[str, str], Tally] = {}
    number, deadline = 0, time.monotonic() + 60 * options.minutes
    sizes = {work: list(DISKS) for work in works}
    kills = 0
    while time.monotonic() < deadline and (kills < options.kills or any(sizes.values())):
        for what, method in works:
            if time.monotonic() > deadline:
                break
            arguments, number = command(folder, method, what), number + 1
            fault, out = ("killed", "small disk", "file harmed")[number // len(works) % 3], folder / str(number)
            if fault == "small disk" and not sizes[what, method]:
                fault = "killed"
            if fault == "file harmed" and what == "evaluate":
                fault = "killed"
            tally = tallies.setdefault((fault, f"{what}, {method}"), Tally())
            if fault == "killed":
                killed(arguments, out, whole[what, method], rng.uniform(0, seconds[what, method]), tally)
                kills += 1
            elif fault == "small disk":
                size = sizes[what, method].pop(rng.randrange(len(sizes[what, method])))
                on_a_small_disk(arguments, out, whole[what, method], size, tally)
            else:
                harmed(arguments, out, whole[what, method], tally, rng)
    return tallies


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """Markdown."""
    heads = {"killed": "finished before", "small disk": "had room", "file harmed": "refused in one line"}
    lines = ["| fault | what, method | tried | | held |", "|---|---|---:|---|---:|"]
    for (fault, work), tally in sorted(tallies.items()):
        aside = f"{tally.finished} {heads[fault]}" if tally.finished else ""
        lines.append(f"| {fault} | {work} | {tally.tried} | {aside} | {tally.tried - len(tally.failures)} |")
    tried, failed = sum(t.tried for t in tallies.values()), [f for t in tallies.values() for f in t.failures]
    lines.append(f"| all | | {tried} | | {tried - len(failed)} |")
    return "\n".join([*lines, *(f"\nFailed: {problem}" for problem in failed)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What killed processes and full disks cost.")
    parser.add_argument("methods", nargs="*", help="(default: all that have weights)")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    torch.set_num_threads(1)
    onemask.running.CHECKPOINT_SECONDS = CHECKPOINT_SECONDS
    gc.freeze()
    with tempfile.TemporaryDirectory() as temporary:
        print(table(measured(parser.parse_args(), Path(temporary))))
