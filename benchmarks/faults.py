"""What killed processes and full disks cost: nothing, if a resumed run ends with the very same files.

Runs of all methods with weights, and an evaluation, are killed inside their work, at random: after so many of their
masks, and a part of the time to the next. They work on disks too small for them, and files of an interrupted run are
removed, cut or damaged. Each is resumed and compared, byte for byte, with one that nothing interrupted; files under
their final names are read after every fault: --resume restores the results, or refuses in one line. Each trial is a
line of `--into`; the same command goes on where an earlier one was interrupted. Writes a table in Markdown.

    python benchmarks/faults.py [METHOD ...] [--kills 100] [--harmed 2] [--into faults.jsonl]

Disks of a given size are mounted in a namespace of their own: Linux, with user namespaces or as root.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

import onemask.jobs.running
from onemask.cli import main as onemask_main
from onemask.video.masks import read_label_map, write_mask
from onemask.weights.store import installed

FRAMES, HEIGHT, WIDTH = 6, 96, 128
DISKS = (16, 32, 48, 64, 96, 192, 384, 1024)  # KiB
QUICKER = {  # few steps where an object has a network of its own: what is written is the same
    "frtm-lite": ("capacity=8", "first_samples=2", "first_iterations=2,2", "finetune_iterations=1"),
    "fusion": ("first_samples=2", "first_iterations=2,2", "finetune_iterations=1"),
    "fusion-fast": ("first_samples=2", "first_iterations=2,2"),
}
CHECKPOINT_SECONDS = 0.1  # instead of half a minute: as many saved sessions as in a long run
ENOUGH_KIB = 1 << 18
NEW_NAMESPACES = 0x10000000 | 0x00020000  # CLONE_NEWUSER | CLONE_NEWNS
REMOUNT = 32
ATTEMPTS = 5  # to kill a process before it ends
HELD, REFUSED, TOO_LATE, HAD_ROOM = "held", "refused in one line", "finished before", "had room"


@dataclass(frozen=True)
class Work:
    """What is done, and what comes of it where nothing interrupts it."""

    name: str
    arguments: list[str]
    files: dict[str, bytes]
    pause: float  # seconds from a mask to the next


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
    few = [word for option in QUICKER.get(method, ()) for word in ("--set", option)]
    how = ["--method", method, "--size", "64", "--device", "cpu", *few]
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


def masks_in(out: Path) -> set[Path]:
    """The masks that are there under their final names."""
    folders = {"masks", "masks.partial", "predictions"}
    try:
        return {path for path in out.rglob("[0-9]*.png") if folders.intersection(path.parts)}
    except FileNotFoundError:  # the folder has its final name now
        return set()


def unreadable(out: Path) -> str | None:
    """A file that stands half-written under its final name."""
    masks = masks_in(out)
    for path in out.rglob("*"):
        if not path.is_file() or ".partial." in path.name or ".onemask" in path.parts:
            continue
        try:
            if path in masks:
                read_label_map(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".mp4":
                with av.open(str(path)) as container:
                    assert sum(1 for _ in container.decode(video=0)) == FRAMES
        except Exception as error:
            return f"{path.name} is not whole: {error}"
    return None


def resumed(work: Work, out: Path, messages: Path) -> str | None:
    """Resume and compare; what did not hold."""
    code = ended(started(lambda: onemask_main([*work.arguments, "--out", str(out), "--resume"]), messages))
    if code != 0:
        return f"--resume ended with {code}: {messages.read_text()[-300:]}"
    if results(out) != work.files:
        differing = [name for name, data in work.files.items() if results(out).get(name) != data]
        return f"after --resume {len(differing)} of {len(work.files)} files differ, {differing[:3]}"
    left = [path.name for path in out.rglob(".*") if ".partial" in path.name]
    return f"{left[0]} is left" if left else None


# Faults ---------------------------------------------------------------------------------------------------------------


def killed_after(arguments: list[str], out: Path, masks: int, delay: float, messages: Path) -> bool:
    """Kill a process so many seconds after it has written so many masks; False where it had ended before."""
    pid = started(lambda: onemask_main(arguments), messages)
    while len(masks_in(out)) < masks:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    return ended(pid) == -signal.SIGKILL


def killed(work: Work, out: Path, rng: random.Random) -> str:
    """Kill a process inside its work; in every other case once more while it resumes."""
    messages, masks = out.with_suffix(".txt"), rng.randrange(FRAMES)
    arguments = [*work.arguments, "--out", str(out)]
    if not killed_after(arguments, out, masks, rng.uniform(0, work.pause), messages):
        return TOO_LATE
    problem = unreadable(out)
    if rng.random() < 0.5:
        killed_after(
            [*arguments, "--resume"], out, rng.randint(masks, FRAMES - 1), rng.uniform(0, work.pause), messages
        )
        problem = problem or unreadable(out)
    return problem or resumed(work, out, messages) or HELD


def on_a_small_disk(work: Work, out: Path, size: int) -> str:
    """Work on a disk of so many KiB, then with room on the same disk."""
    out.mkdir()
    messages, told = out.with_suffix(".txt"), out.with_suffix(".told")

    def act() -> int:
        mounted(out, size)
        place = out / "out"
        with told.open("w") as file, contextlib.redirect_stderr(file):
            code = onemask_main([*work.arguments, "--out", str(place)])
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
        problem = problem or resumed(work, place, messages.with_suffix(".resumed"))
        print(problem or "")
        return 3 if problem else 0

    code = ended(started(act, messages))
    return {0: HELD, 1: HAD_ROOM}.get(code) or f"{size} KiB: {messages.read_text()[-400:].strip()}"


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


def harmed(work: Work, out: Path, rng: random.Random) -> str:
    """Remove, cut or fill with noise a file of what is kept to resume; --resume restores the results, or refuses."""
    messages = out.with_suffix(".txt")
    if not killed_after([*work.arguments, "--out", str(out)], out, rng.randrange(1, FRAMES), 0, messages):
        return TOO_LATE
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
    problem = resumed(work, out, messages)
    said = messages.read_text()
    if problem and "onemask: " in said and "Traceback" not in said and "ended with 2" in problem:
        return REFUSED
    return f"{path.relative_to(out)} {how}: {problem}" if problem else HELD


# All of it ------------------------------------------------------------------------------------------------------------


def whole(name: str, arguments: list[str], out: Path) -> Work:
    """Do it once without a fault, and see how long a mask takes."""
    came: list[float] = []
    modules = out.with_suffix(".modules")

    def act() -> int:
        code = onemask_main([*arguments, "--out", str(out)])
        modules.write_text("\n".join(sys.modules))
        return code

    pid = started(act, out.with_suffix(".txt"))
    while not os.waitpid(pid, os.WNOHANG)[0]:
        came += [time.perf_counter()] * (len(masks_in(out)) - len(came))
        time.sleep(0.002)
    files = results(out)
    if len(came) < 2 or not files:
        sys.exit(out.with_suffix(".txt").read_text())
    for module in modules.read_text().splitlines():  # once, and not in each of the processes to come
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    return Work(name, arguments, files, (came[-1] - came[0]) / (len(came) - 1))


def trials(works: list[Work], options: argparse.Namespace, tried: set[str]) -> Iterator[tuple[str, Work, str]]:
    """Kind, work and name of what is to be tried, but for what was; kills over all works in turn."""
    turns = [("small disk", work, str(size)) for size in DISKS for work in works]
    turns += [("killed", works[number % len(works)], str(number)) for number in range(options.kills)]
    runs = [work for work in works if work.name.startswith("run")]
    turns += [("file harmed", work, str(number)) for number in range(options.harmed) for work in runs]
    random.Random(0).shuffle(turns)
    yield from (turn for turn in turns if f"{turn[0]}, {turn[1].name}, {turn[2]}" not in tried)


def measured(options: argparse.Namespace, folder: Path) -> list[dict[str, str]]:
    """Everything that was tried, here and in earlier processes."""
    write_inputs(folder)
    methods = options.methods or [*(name for name in installed() if name != "maskrcnn-lite"), "best"]
    before = [json.loads(line) for line in options.into.read_text().splitlines()] if options.into.exists() else []
    works = [whole(f"run, {name}", command(folder, name, "run"), folder / name) for name in methods]
    last = methods[-2:][0]
    works.append(whole(f"evaluate, {last}", command(folder, last, "evaluate"), folder / "evaluation"))
    with options.into.open("a") as into:
        for number, (fault, work, name) in enumerate(trials(works, options, {each["trial"] for each in before})):
            trial = f"{fault}, {work.name}, {name}"
            for attempt in range(ATTEMPTS):
                out, rng = folder / f"{number}-{attempt}", random.Random(f"{trial} {attempt}")
                if fault == "small disk":
                    told = on_a_small_disk(work, out, int(name))
                else:
                    told = (killed if fault == "killed" else harmed)(work, out, rng)
                shutil.rmtree(out, ignore_errors=True)
                if told != TOO_LATE:
                    break
            before.append({"trial": trial, "fault": fault, "work": work.name, "outcome": told})
            into.write(json.dumps(before[-1]) + "\n")
            into.flush()
    return before


def table(outcomes: list[dict[str, str]]) -> str:
    """Markdown."""
    tally = Counter((each["fault"], each["work"], each["outcome"]) for each in outcomes)
    tried = Counter((each["fault"], each["work"]) for each in outcomes)
    lines = ["| fault | what, method | tried | held | refused in one line | had room | came too late | failed |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
    kinds = (HELD, REFUSED, HAD_ROOM, TOO_LATE)
    for (fault, work), count in sorted(tried.items()):
        numbers = [tally[fault, work, kind] for kind in kinds]
        lines.append(f"| {fault} | {work} | {count} | {' | '.join(map(str, numbers))} | {count - sum(numbers)} |")
    numbers = [sum(each["outcome"] == kind for each in outcomes) for kind in kinds]
    lines.append(f"| all | | {len(outcomes)} | {' | '.join(map(str, numbers))} | {len(outcomes) - sum(numbers)} |")
    failed = [f"\nFailed: {each['trial']}: {each['outcome']}" for each in outcomes if each["outcome"] not in kinds]
    return "\n".join([*lines, *failed])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="(default: all that have weights, and best)")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--harmed", type=int, default=2, help="damaged files of an interrupted run, for each method")
    parser.add_argument("--into", type=Path, default=Path("faults.jsonl"), help="outcomes, one a line; gone on with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    onemask.jobs.running.CHECKPOINT_SECONDS = CHECKPOINT_SECONDS
    gc.freeze()
    with tempfile.TemporaryDirectory() as temporary:
        print(table(measured(options, Path(temporary))))


if __name__ == "__main__":
    main()
