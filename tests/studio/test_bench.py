"""The worker's process: its label maps are those of `onemask run`."""

from __future__ import annotations

import pytest

from onemask.jobs import plan
from onemask.propagation import Propagation
from onemask.session import Session
from onemask.studio import bench
from onemask.studio.messages import FirstMask, PropagationJob, WarmUp, pack, unpack
from onemask.studio.project import MethodChoice
from onemask.video.reader import open_video
from videos import Scene, Unsure, gap_where_a_correction_begins, write_images


class Pipe:
    """Keeps what is said, and has no message."""

    def __init__(self):
        self.said = []

    def send(self, message):
        self.said.append(message)

    def poll(self):
        return False


@pytest.mark.parametrize("wanted", [range(4, 8), range(9), (2, 4, 6)])
def test_stretches_are_as_in_a_whole_run(wanted):
    scene, method = Scene.of(ids=(1, 7)), Unsure()
    given, video = gap_where_a_correction_begins(scene.labels[0]), open_video(scene.images)
    keys = {index: plan.Key.of(label_map, 48) for index, label_map in given.items()}
    choice = MethodChoice("unsure", short_side=48, device="cpu", runtime="torch")
    packed = {index: pack(label_map) for index, label_map in given.items()}
    worker = bench._Bench(pipe := Pipe(), lambda: video, ("unsure", method))
    worker.handle(PropagationJob(choice, packed, tuple(plan.stretches(keys, wanted))))
    assert pipe.said[-1] == ("end", None)
    made = {message[1]: unpack(message[2]) for message in pipe.said if message[0] == "mask"}
    whole = [labelled.label_map for labelled in Propagation(Session(method, short_side=48, device="cpu"), video, given)]
    assert list(made) == list(wanted)
    assert all((label_map == whole[index]).all() for index, label_map in made.items())


def test_a_video_that_is_away_is_the_answer_to_what_needs_it_and_is_found_once_it_is_back(tmp_path):
    scene, choice = Scene.of(), MethodChoice("unsure", short_side=48, device="cpu", runtime="torch")
    video = tmp_path / "video"
    worker = bench._Bench(pipe := Pipe(), lambda: open_video(video), ("unsure", Unsure()))
    job = PropagationJob(choice, {0: pack(scene.labels[0])}, (plan.Stretch(0, 1, 2),))
    requests = [WarmUp(choice), FirstMask(7, 0, box=(0, 0, 30, 30)), job]
    for request in requests:
        worker.handle(request)
    assert [message[:2] for message in pipe.said if message[0] != "at"] == [("first", 7), ("end", pipe.said[-1][1])]
    assert all("does not exist" in str(message[-1]) for message in pipe.said if message[0] != "at")
    write_images(video, scene.images)
    worker.handle(job)
    assert pipe.said[-1] == ("end", None)
