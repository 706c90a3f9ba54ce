"""On a Ray cluster of this machine: nothing is lost with a process that is killed, and nothing done twice."""

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from onemask import __version__
from onemask.cli import main
from onemask.errors import InputError
from onemask.evaluation.compare import Variant, compare
from onemask.evaluation.evaluate import evaluate
from onemask.jobs import batching
from onemask.jobs.manifest import Job
from onemask.jobs.running import run
from onemask.settings import Settings
from onemask.video.label_maps import write_mask
from onemask.video.reader import open_video
from onemask.workers import cluster
from videos import QUICK, Scene, write_images, write_video

SETTINGS = Settings(method="stub", options=QUICK, short_side=64, device="cpu")


@pytest.fixture(scope="module")
def ray(stub):
    """A cluster of two processors, which ends with this module."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        except Exception as error:  # it gives its own processes half a minute, which a busy machine may not keep
            pytest.skip(f"Ray cannot be started here: {error}")
        yield ray
        ray.shutdown()


@pytest.fixture
def folder(tmp_path, stub):
    for name, frames in (("a", 8), ("b", 12), ("c", 6)):
        scene = Scene.of(frames=frames)
        write_video(tmp_path / f"{name}.mp4", scene.images)
        write_mask(tmp_path / f"{name}.png", scene.labels[0])
        run(
            open_video(tmp_path / f"{name}.mp4"),
            {0: scene.labels[0]},
            tmp_path / "alone" / name,
            SETTINGS,
            save=["masks"],
        )
    (tmp_path / "text.mp4").write_text("no video")
    return tmp_path


def masks_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "masks").iterdir())}


def test_a_process_that_is_killed_loses_and_doubles_nothing(ray, folder, capsys):
    lines = [{"video": f"{name}.mp4", "mask": f"{name}.png"} for name in "abc"]
    lines[1]["set"] = [f"dies={folder}/died"]  # the longest, which comes first: killed in its fifth frame, once
    lines.append({"video": "text.mp4", "mask": "a.png"})
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = " ".join(f"--set {name}={value}" for name, value in QUICK.items())
    command = ["batch", str(folder / "all.jsonl"), "--out", str(folder / "out"), "--retries", "0", "--ray"]
    command += ["--run", f"--method stub --short-side 64 --save masks {options}"]
    assert main(command) == 2, "a text is no video"
    assert (folder / "died").exists()
    report = {entry["name"]: entry for entry in json.loads((folder / "out" / "report.json").read_text())}
    assert {name: (entry["done"], entry["attempts"], entry["lost"]) for name, entry in report.items()} == {
        "a": (True, 1, 0),
        "b": (True, 1, 1),
        "c": (True, 1, 0),
        "text": (False, 1, 0),
    }
    for name in "abc":
        assert masks_of(folder / "out" / name) == masks_of(folder / "alone" / name)
    printed = capsys.readouterr().out
    assert "3 of 4 videos are done" in printed
    assert [printed.count(f"{name}: done") for name in "abc"] == [1, 1, 1]
    assert "text.mp4" in (folder / "out" / "text.log").read_text()
    assert int((folder / "died").read_text()) != os.getpid()


def test_a_dataset_is_evaluated_as_here(ray, tmp_path):
    """Of `compare`, which does it by `evaluate`; in the first sequence a process is killed."""
    for name, ids in (("one", (1,)), ("two", (1, 2))):
        scene = Scene.of(frames=7, ids=ids)
        write_images(tmp_path / "JPEGImages" / "480p" / name, scene.images)
        for index, label_map in enumerate(scene.labels):
            write_mask(tmp_path / "Annotations" / "480p" / name / f"{index:05d}.png", label_map)
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("one\ntwo")
    here = evaluate(tmp_path, tmp_path / "here", SETTINGS, protocol="davis2017")
    dying = replace(SETTINGS, options={**QUICK, "dies": str(tmp_path / "died")})
    there = compare(tmp_path, tmp_path / "there", [Variant("a", dying)], protocol="davis2017", ray="")
    assert (tmp_path / "died").exists()
    assert not there.failures
    folder = tmp_path / "there" / "evaluations" / "a"
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["global"] == here.scores.to_json()["global"]
    assert (scores["ran_on"]["device"], scores["times"]["two"]["later_frames"]) == ("cpu", 6)
    for path in sorted((tmp_path / "here" / "predictions").rglob("*.png")):
        assert (folder / path.relative_to(tmp_path / "here")).read_bytes() == path.read_bytes()
    again = evaluate(tmp_path, folder, dying, protocol="davis2017", resume=True, ray="")
    assert again.computed == 0


def test_what_the_cluster_has_not_is_refused(ray):
    with pytest.raises(InputError, match="0 cuda devices, but 1 were asked for"), cluster.hands_of("", ["cuda"]):
        pass
    with pytest.raises(InputError, match="auto, cpu or cuda"), cluster.hands_of("", ["cuda:1"]):
        pass


def test_an_address_that_does_not_answer_is_one_line(folder, capsys, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    (folder / "one.csv").write_text("video,mask\na.mp4,a.png\n")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    command = ["batch", str(folder / "one.csv"), "--out", str(folder / "out"), "--ray", address]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--ray {address}: nothing answers there" in line


class FakeRay:
    """As much of Ray as a hand needs. `answers`: what the processes that are begun say, one after the other."""

    def __init__(self, *answers):
        class RayError(Exception): ...

        class RayTaskError(RayError): ...

        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.answers, self.killed = list(answers), 0

    def remote(self, **needed):
        def version():
            return self.answers.pop(0)

        return lambda worker: SimpleNamespace(
            remote=lambda: SimpleNamespace(
                version=SimpleNamespace(remote=version), call=SimpleNamespace(remote=lambda *_: version())
            )
        )

    def wait(self, waiting, timeout):
        return waiting, []

    def get(self, answer):
        if answer == "dead":
            raise self.exceptions.RayError("no module\nnamed onemask")
        return answer

    def kill(self, actor):
        self.killed += 1


def test_a_process_that_cannot_be_begun_is_begun_again_a_few_times():
    hand = cluster.Hand(ray := FakeRay("dead", "dead", __version__), "cpu")
    assert [hand.ready(), hand.ready(), hand.ready(), hand.ready()] == [False, False, True, True]
    assert ray.killed == 2
    hand = cluster.Hand(FakeRay("dead", "dead", "dead"), "cpu")
    assert [hand.ready(), hand.ready()] == [False, False]
    with pytest.raises(InputError, match=r"no process could be started on the cluster .*no module named onemask"):
        hand.ready()


def test_another_version_on_the_cluster_is_refused():
    with pytest.raises(InputError, match=r"the cluster has onemask 0\.0\.1, but this is"):
        cluster.Hand(FakeRay("0.0.1"), "cpu").ready()


def test_what_is_lost_again_and_again_ends(tmp_path, monkeypatch):
    """A video that kills its process each time must not hold up the batch for ever; the others are done."""

    @contextmanager
    def hands(*_):
        yield [cluster.Hand(FakeRay(__version__, *["dead", __version__] * 9), "cpu")]

    monkeypatch.setattr(batching, "hands_of", hands)
    report = batching.batch([Job("a", tmp_path / "a.mp4")], tmp_path / "out", ray="")
    (outcome,) = report.failed
    assert (outcome.lost, outcome.attempts) == (cluster.LOSSES + 1, 0)
    assert "its process on the cluster was lost (no module named onemask)" in outcome.error


def test_a_missing_package_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    (folder / "one.csv").write_text("video,mask\na.mp4,a.png\n")
    assert main(["batch", str(folder / "one.csv"), "--out", str(folder / "out"), "--ray"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--ray needs the package ray" in line
